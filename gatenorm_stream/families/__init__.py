"""The known architectures, a row each, and a checkpoint read through its row."""
