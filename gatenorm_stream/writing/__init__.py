"""Does: executes a layout, whole or not at all."""
