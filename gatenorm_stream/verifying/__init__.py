"""Reads an output independently and compares it with its record, its plan and its source."""
