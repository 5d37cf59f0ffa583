"""How strongly each attention sublayer couples, from its weights, and which ones go."""
