"""The command: a subcommand a file, whose errors are caught in one place (`boundary`)."""
