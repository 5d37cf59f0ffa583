"""The command. The only package that prints; one command a file, errors are caught in one place (`boundary`)."""
