"""What an output says of its tokenizer, so that transformers reads it as the source's: members of the kind.

tests/families/test_tokenizers.py compares the ids, tests/oldest those in older releases.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import gatenorm_stream
from gatenorm_stream.errors import FormatError
from gatenorm_stream.formats.tokenizer import AUTO_MAP, FIXED_REGEX, TEKKEN
from gatenorm_stream.formats.tokenizer import OLDER as BEFORE
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint, write_latent

BYTES, PIECES = {"pre_tokenizer": {"type": "ByteLevel"}}, {"normalizer": {"type": "Prepend"}}
AS_IT_IS = "PreTrainedTokenizerFast"
OLDER, DEEPSEEK = BEFORE.format(release="5.17"), BEFORE.format(release="5.22")
MEMBERS = [
    # model type, its tokenizer_config.json, tokenizer.json, the class that the output names, cautions
    ("mistral", {"tokenizer_class": "LlamaTokenizer"}, PIECES, AS_IT_IS, [OLDER]),
    ("mistral", {"tokenizer_class": "LlamaTokenizerFast"}, BYTES, AS_IT_IS, [OLDER]),
    ("mistral", {"tokenizer_class": "PreTrainedTokenizerFast"}, BYTES, AS_IT_IS, []),
    ("mistral", {"tokenizer_class": "TokenizersBackend"}, BYTES, "TokenizersBackend", []),
    ("mistral", {}, PIECES, AS_IT_IS, [OLDER]),
    ("mistral", {"tokenizer_class": AS_IT_IS, "fix_mistral_regex": True}, BYTES, AS_IT_IS, [FIXED_REGEX]),
    ("granite", {"tokenizer_class": "GPT2Tokenizer"}, BYTES, AS_IT_IS, [OLDER]),
    ("olmo2", {"tokenizer_class": "GPT2TokenizerFast"}, BYTES, AS_IT_IS, [OLDER]),
    ("stablelm", {"tokenizer_class": "GPTNeoXTokenizer"}, BYTES, AS_IT_IS, [OLDER]),
    ("qwen2", {"tokenizer_class": "Qwen2Tokenizer"}, BYTES, "Qwen2Tokenizer", []),
    ("qwen2", {"tokenizer_class": "Qwen2TokenizerFast"}, BYTES, "Qwen2Tokenizer", []),
    ("qwen2", {"tokenizer_class": "LlamaTokenizerFast"}, BYTES, "Qwen2Tokenizer", [OLDER]),
    ("qwen2", {"tokenizer_class": AS_IT_IS}, BYTES, "Qwen2Tokenizer", [OLDER]),
    ("qwen2", {}, BYTES, "Qwen2Tokenizer", []),
    ("qwen3", {"tokenizer_class": AS_IT_IS}, BYTES, AS_IT_IS, []),
    ("qwen3", {"tokenizer_class": "LlamaTokenizer"}, BYTES, AS_IT_IS, [OLDER]),
    ("gemma", {"tokenizer_class": "GemmaTokenizerFast"}, PIECES, "GemmaTokenizerFast", []),
    ("gemma", {"tokenizer_class": "LlamaTokenizer"}, PIECES, "LlamaTokenizer", [OLDER]),
    ("deepseek_v2", {"tokenizer_class": "LlamaTokenizerFast"}, PIECES, "LlamaTokenizerFast", [DEEPSEEK]),
    ("deepseek_v2", {"tokenizer_class": "LlamaTokenizerFast"}, BYTES, AS_IT_IS, [DEEPSEEK]),
    ("deepseek_v2", {"tokenizer_class": AS_IT_IS}, BYTES, AS_IT_IS, []),
]


def write(folder: Path, model_type: str, told: object, tokenizer: object) -> Path:
    if model_type == "deepseek_v2":
        source = write_latent(folder / "source", tokenizer=False, architectures=None)
    else:
        config = llama_config(model_type=model_type, architectures=None, sliding_window=None)
        source = write_checkpoint(folder / "source", random_tensors(llama_shapes()), config, tokenizer=False)
    for name, content in (("tokenizer_config.json", told), ("tokenizer.json", tokenizer)):
        if content is not None:
            (source / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return source


def pruned(source: Path, form: str = "transformers") -> Path:
    out = source.with_name(f"out-{form}")
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[1], format=form), out)
    return out


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize(("model_type", "told", "tokenizer", "named", "cautions"), MEMBERS)
def test_the_class_that_the_source_has(
    model_type: str, told: dict[str, Any], tokenizer: object, named: str, cautions: list[str], tmp_path: Path
) -> None:
    source = write(tmp_path, model_type, {"padding_side": "left", **told}, tokenizer)
    for form in ("transformers", *(["no-op"] if cautions and model_type == "mistral" else [])):
        out = pruned(source, form)
        made = read(out / "tokenizer_config.json")
        inputs = {"model_input_names": ["input_ids", "attention_mask"]} if named == AS_IT_IS else {}
        assert made == {
            "padding_side": "left", **told, **inputs, "tokenizer_class": named, "auto_map": AUTO_MAP
        }  # fmt: skip
        origin = {"model_type": model_type, "tokenizer_class": told.get("tokenizer_class"), "of_config": None}
        assert read(out / "config.json")["gatenorm"]["tokenizer"] == origin
        card = (out / "README.md").read_text()
        assert [c for c in (OLDER, DEEPSEEK, TEKKEN, FIXED_REGEX) if c in card] == cautions


def test_qwen_2s_class_is_none_for_llama_cpps_converter(tmp_path: Path) -> None:
    tokenizer = {"model": {"type": "BPE", "byte_fallback": True}, "decoder": {"type": "Sequence"}}
    source = write(tmp_path, "qwen2", {"tokenizer_class": AS_IT_IS}, tokenizer)
    with pytest.raises(FormatError, match="by Qwen2Tokenizer"):
        gatenorm_stream.plan(source, layers=[1], format="no-op", engines=["llama.cpp"])


def test_mistral_common_is_named(tmp_path: Path) -> None:
    source = write(tmp_path, "mistral", {"tokenizer_class": AS_IT_IS}, BYTES)
    (source / "tekken.json").write_text("{}")
    assert TEKKEN in (pruned(source) / "README.md").read_text()


@pytest.mark.parametrize(
    ("model_type", "told", "tokenizer"),
    [
        ("llama", {"tokenizer_class": "LlamaTokenizer"}, PIECES),
        ("llama", {}, BYTES),
        ("smollm3", {"tokenizer_class": AS_IT_IS}, BYTES),
        ("mistral", None, None),
        ("mistral", "not JSON", BYTES),
        ("mistral", [], BYTES),
        ("mistral", {"auto_map": {"AutoTokenizer": ["own.Own", None]}}, BYTES),
    ],
)
def test_what_is_the_same_anyway_or_of_its_own_stays_as_it_is(
    model_type: str, told: object, tokenizer: object, tmp_path: Path
) -> None:
    source = write(tmp_path, model_type, told, tokenizer)
    out = pruned(source)
    assert "tokenizer" not in read(out / "config.json")["gatenorm"]
    name = "tokenizer_config.json"
    assert (out / name).exists() == (source / name).exists()
    if told is not None:
        assert (out / name).read_bytes() == (source / name).read_bytes()


def test_zeroed_keeps_model_type_and_tokenizer(tmp_path: Path) -> None:
    source = write(tmp_path, "mistral", {"tokenizer_class": "LlamaTokenizer"}, PIECES)
    out = pruned(source, "zeroed")
    assert (out / "tokenizer_config.json").read_bytes() == (source / "tokenizer_config.json").read_bytes()


def test_a_tokenizer_without_a_config_gets_one(tmp_path: Path) -> None:
    source = write(tmp_path, "qwen3", None, BYTES)
    out = pruned(source)
    gatenorm_stream.verify(out, against=source)
    made = read(out / "tokenizer_config.json")
    assert made == {"auto_map": AUTO_MAP, "tokenizer_class": "Qwen2Tokenizer"}
