"""What stands in safetensors and GGUF files, from their headers and configs alone."""
