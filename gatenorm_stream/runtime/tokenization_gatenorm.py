"""Load the tokenizer of a model whose attention was partly removed as the model that it was made of has it.

This file travels with checkpoints written by gatenorm-stream; tokenizer_config.json names it under `auto_map`, so

    AutoTokenizer.from_pretrained(DIR, trust_remote_code=True)

runs it. transformers chooses a tokenizer's class by config.json's `model_type`, in each release by other rules, and
the output's type is none that it knows. So AutoTokenizer is asked again, with the source's type. config.json says:

    "gatenorm": {"tokenizer": {
      "model_type": "mistral",                the source's
      "tokenizer_class": "LlamaTokenizer",    what its tokenizer_config.json said; null if nothing
      "of_config": null                       what its config.json said of the tokenizer's class
    }}

It opens no connection, starts no process, and reads nothing but what transformers hands it.
"""

import threading
from contextlib import contextmanager

from transformers import CONFIG_MAPPING, AutoTokenizer, PretrainedConfig
from transformers.models.auto import tokenization_auto

LOCK = threading.RLock()


class GateNormTokenizer:
    """What `auto_map` names for AutoTokenizer: hands over to the class that the source's tokenizer has."""

    @classmethod
    def from_pretrained(cls, path, *args, trust_remote_code=None, **kwargs):
        config_dict, _ = PretrainedConfig.get_config_dict(path, **kwargs)
        told = config_dict["gatenorm"]["tokenizer"]
        config = CONFIG_MAPPING[told["model_type"]]()
        config.tokenizer_class = told["of_config"]
        with _as_the_source_says(path, told["tokenizer_class"]):
            return AutoTokenizer.from_pretrained(path, *args, config=config, trust_remote_code=False, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class=None):
        """Called by transformers; nothing to do."""


@contextmanager
def _as_the_source_says(path, tokenizer_class):
    """AutoTokenizer finds the source's tokenizer_config.json in `path`; that of all others stays as it is."""
    stock = tokenization_auto.get_tokenizer_config

    def told(asked, *args, **kwargs):
        found = stock(asked, *args, **kwargs)
        if asked != path:
            return found
        left = {key: value for key, value in found.items() if key not in ("auto_map", "tokenizer_class")}
        return {**left, "tokenizer_class": tokenizer_class} if tokenizer_class else left

    with LOCK:
        tokenization_auto.get_tokenizer_config = told
        try:
            yield
        finally:
            tokenization_auto.get_tokenizer_config = stock
