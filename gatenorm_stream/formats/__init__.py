"""Output formats, one file each, and the choice between them."""
