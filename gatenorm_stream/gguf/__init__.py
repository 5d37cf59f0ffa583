"""GGUF files, the form that llama.cpp runs: read by ranges, and written anew without some attention sublayers."""
