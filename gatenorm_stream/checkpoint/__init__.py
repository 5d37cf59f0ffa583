"""Reading safetensors checkpoints by byte ranges, without loading them."""
