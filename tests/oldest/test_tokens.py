"""The tokenizer of an output is the source's in older releases of transformers too, by the file that travels along.

Each of these releases chooses the class by other rules. Without remote code only what the tool says holds: that is
asked of the sources of which its plan says nothing (tests/families/test_tokenizers.py has the newest release).
"""

from __future__ import annotations

import json
import os
import subprocess

import pytest

import gatenorm_stream
from tests.oldest.test_oldest import HERE, PYTHON, VERSIONS
from tests.tokenizers_of_kinds import KINDS, TEXT, write_tokenizer

pytestmark = [pytest.mark.engines, pytest.mark.skipif(not PYTHON, reason="nox -s oldest sets OLDER_PYTHON")]
SOURCES = [
    ("mistral", "LlamaTokenizer", "pieces"),
    ("mistral", "LlamaTokenizerFast", "pieces with <s>"),
    ("mistral", None, "pieces"),
    ("granite", "GPT2Tokenizer", "digits"),
    ("olmo2", None, "digits"),
    ("olmo2", "GPT2Tokenizer", "digits"),
    ("stablelm", "GPTNeoXTokenizer", "digits"),
    ("phi3", "LlamaTokenizer", "pieces"),
    ("qwen2", "Qwen2Tokenizer", "pattern"),
    ("qwen2", "LlamaTokenizerFast", "pattern"),
    ("qwen2", None, "digits"),
    ("qwen3", "PreTrainedTokenizerFast", "digits"),
    ("gemma2", "GemmaTokenizer", "pieces, no space before"),
    ("cohere", "CohereTokenizer", "digits"),
    ("gpt2", None, "gpt2"),
    ("deepseek_v2", "LlamaTokenizerFast", "pieces"),
    ("deepseek_v2", "LlamaTokenizerFast", "pattern"),
    ("llama", "LlamaTokenizer", "pieces"),
    ("llama", "PreTrainedTokenizerFast", "digits"),
]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A tiny model of each type with its tokenizer, and what is made of it."""
    from tests.families import tiny
    from tests.families.cases import CASES

    folder, pairs = tmp_path_factory.mktemp("tokens"), []
    for number, (model_type, declared, kind) in enumerate(SOURCES):
        source, out = folder / f"{number}", folder / f"{number}-out"
        tiny.make(next(case for case in CASES if case.family == model_type)).save_pretrained(source)
        write_tokenizer(source, KINDS[kind](), declared)
        gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[1], format="transformers"), out)
        pairs.append((source, out))
    return pairs


@pytest.mark.parametrize("version", VERSIONS, ids=lambda folder: folder.name)
def test_the_ids_are_the_sources(version, pairs, tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": str(version),
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(tmp_path),
    }
    command = [PYTHON, HERE / "tokens.py", TEXT, *(path for pair in pairs for path in pair)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(SOURCES)
    for (model_type, declared, kind), (_, out), (_, same) in zip(SOURCES, pairs, results, strict=True):
        told = (out / "README.md").read_text()
        assert "remote code" in same, (model_type, declared, kind, done.stderr)
        assert "without" in same or "transformers 4, and 5 below 5." in told, (model_type, declared, kind)
