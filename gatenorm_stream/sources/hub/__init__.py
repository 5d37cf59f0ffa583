"""Checkpoints on the Hugging Face Hub, read by byte ranges."""
