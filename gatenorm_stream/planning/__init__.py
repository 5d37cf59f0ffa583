"""Decides: a plan of what goes, and the layout of the bytes that make each file of the output."""
