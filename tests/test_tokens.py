"""Tokens of tokenizer.json and of a GGUF file's own vocabulary; tests/engines compares them with the engines'."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatenorm_stream.checkpoint.gguf import open_gguf
from gatenorm_stream.checkpoint.gguf_arrays import MOST_ENTRIES, read_numbers, read_strings
from gatenorm_stream.checkpoint.gguf_metadata import ARRAY, Value
from gatenorm_stream.checkpoint.safetensors import open_checkpoint
from gatenorm_stream.checkpoint.tensors import Checkpoint
from gatenorm_stream.errors import CheckpointError, GateNormError, TextError, UnsupportedModelError
from gatenorm_stream.measuring.gguf_tokens import cut_at
from gatenorm_stream.measuring.merge_by_score import merge_by_score
from gatenorm_stream.measuring.text import Text, built_in_text
from gatenorm_stream.measuring.tokens import FEWEST, encode, encode_parts
from gatenorm_stream.sources.open import open_source
from tests import vocabularies
from tests.vocabularies import CONTROL, NORMAL, SAMPLE, USER_DEFINED, write_vocabulary

BASE = {
    "version": "1.0",
    "added_tokens": [],
    "model": {"type": "BPE", "unk_token": "<unk>", "vocab": {"<unk>": 0, "<s>": 1, "a": 2, "b": 3}, "merges": []},
}


@contextmanager
def opened(path: Path) -> Iterator[Checkpoint]:
    source = open_source(path)
    with open_gguf(source) if source.gguf else open_checkpoint(source) as checkpoint:
        yield checkpoint


def ids_of(path: Path, text: str) -> list[int]:
    with opened(path) as checkpoint:
        return encode(checkpoint, text)


def refused(path: Path, error: type[GateNormError], *says: str, text: str = "ab") -> None:
    with pytest.raises(error) as caught:
        ids_of(path, text)
    assert "\n" not in str(caught.value)
    for part in says:
        assert part in str(caught.value)


# tokenizer.json


def test_fixture(sotu: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(sotu / "tokenizer.json"))
    assert ids_of(sotu, SAMPLE) == tokenizer.encode(SAMPLE).ids
    assert ids_of(sotu, "")[0] == tokenizer.token_to_id("<s>")


def test_special_tokens_in_the_text_are_text(sotu: Path) -> None:
    ids = ids_of(sotu, "one <s> two</s>")
    assert (ids.count(1), ids.count(2)) == (1, 0)


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
    ],
    "pair": [],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
}


@pytest.mark.parametrize(
    ("processor", "config", "expected"),
    [
        (None, None, [2, 3]),
        (TEMPLATE, None, [1, 2, 3]),
        (TEMPLATE, {}, [1, 2, 3]),
        (TEMPLATE, {"add_bos_token": False, "bos_token": "<s>"}, [2, 3]),
        (None, {"add_bos_token": True, "bos_token": {"content": "<s>"}}, [1, 2, 3]),
        (None, {"add_bos_token": True}, [2, 3]),
        (TEMPLATE, "damaged", [1, 2, 3]),
    ],
)
def test_bos(processor: Any, config: Any, expected: list[int], llama: Path) -> None:
    write_tokenizer(llama, {**BASE, "post_processor": processor})
    if config is not None:
        (llama / "tokenizer_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    assert ids_of(llama, "ab") == expected


def test_truncation_and_padding_are_left_out(llama: Path) -> None:
    truncation = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    padding = {
        "strategy": {"Fixed": 40},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<unk>",
    }
    write_tokenizer(llama, {**BASE, "truncation": truncation, "padding": padding})
    assert ids_of(llama, "abab") == [2, 3, 2, 3]


def write_tokenizer(root: Path, content: Any) -> None:
    (root / "tokenizer.json").write_text(json.dumps(content))


def test_bos_that_the_vocabulary_lacks(llama: Path) -> None:
    write_tokenizer(llama, BASE)
    (llama / "tokenizer_config.json").write_text('{"add_bos_token": true, "bos_token": "<bos>"}')
    refused(llama, CheckpointError, "the BOS token '<bos>'", "restore it")


def test_missing_tokenizer(llama: Path) -> None:
    (llama / "tokenizer.json").unlink()
    refused(llama, UnsupportedModelError, "has no tokenizer.json; put the tokenizer")
    (llama / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>")
    refused(llama, UnsupportedModelError, "has a tokenizer.model but no tokenizer.json", "save_pretrained")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 5000,
        b"[" * 5_000_000,
        json.dumps({**BASE, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}}).encode(),
        json.dumps({**BASE, "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}).encode(),
        json.dumps({**BASE, "model": {**BASE["model"], "unk_token": "missing"}}).encode(),  # type: ignore[dict-item]
    ],
    ids=["empty", "no UTF-8", "deep", "many values", "merge", "panic", "no unknown token"],
)
def test_damaged_tokenizer_json(content: bytes, llama: Path) -> None:
    (llama / "tokenizer.json").write_bytes(content)
    refused(llama, CheckpointError, "tokenizer.json", "restore it", text="abc")


def test_regular_expression_without_end(llama: Path) -> None:
    split = {
        "type": "Split",
        "pattern": {"Regex": r"(\w+\s?)+(?=[^\w\s\W])"},
        "behavior": "Isolated",
        "invert": False,
    }
    write_tokenizer(llama, {**BASE, "pre_tokenizer": split})
    refused(llama, CheckpointError, "retry-limit", text="some words " * 10)


def test_text_that_a_tokenizer_makes_endless(llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Eight steps, each ten times as long: 200 kB of file and text took all memory, and ended the process."""
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
    write_tokenizer(llama, {**BASE, "normalizer": {"type": "Sequence", "normalizers": [step] * 8}})
    refused(llama, CheckpointError, "more memory than a tokenizer of its size", text="a" * 1000)
    assert capfd.readouterr() == ("", "")


def test_a_panic_is_not_shown(llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_tokenizer(llama, {**BASE, "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}})
    refused(llama, CheckpointError, "restore it", text="abc")
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_tokenizer_that_takes_its_time(llama: Path) -> None:
    """Words without end make WordPiece take time of the square of the text."""
    model = {
        "type": "WordPiece",
        "unk_token": "<unk>",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 10**9,
        "vocab": {"<unk>": 0, "a": 1, **{f"##{'a' * n}b": n + 1 for n in range(1, 9)}},
    }
    write_tokenizer(llama, {**BASE, "model": model})
    refused(llama, CheckpointError, "more processor time than a tokenizer of its size", text="a" * 600_000)


def test_what_lies_in_the_working_directory_is_not_run(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "tokenizers", "resource", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    write_tokenizer(llama, BASE)
    assert ids_of(llama, "ab") == [2, 3]
    assert not (tmp_path / "ran").exists()


def test_large_tokenizer_json_is_not_read(llama: Path) -> None:
    with (llama / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 40)
    refused(llama, CheckpointError, "1099511627776 bytes long")


FRAGMENTS: tuple[Any, ...] = (None, True, -1, 1 << 40, 1e300, "", "a", "(", [], {}, [[]], {"type": "BPE"})


@given(st.data())
def test_hostile_tokenizer_json(tmp_path_factory: pytest.TempPathFactory, sotu: Path, data: st.DataObject) -> None:
    root = tmp_path_factory.getbasetemp() / "hostile"
    if not root.exists():
        shutil.copytree(sotu, root)
    split = {"type": "Split", "pattern": {"Regex": "a+"}, "behavior": "Isolated", "invert": False}
    content = json.loads(json.dumps({**BASE, "post_processor": TEMPLATE, "pre_tokenizer": split}))
    for _ in range(data.draw(st.integers(1, 3))):
        places = list(places_in(content))
        if not places:
            break
        holder, key = data.draw(st.sampled_from(places))
        holder[key] = deepcopy(data.draw(st.sampled_from(FRAGMENTS)))
    write_tokenizer(root, content)
    try:
        ids_of(root, "ab ba")
    except (CheckpointError, UnsupportedModelError) as error:
        assert "\n" not in str(error)


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(entries):
        yield value, key
        yield from places_in(inner)


# GGUF


@pytest.fixture(scope="module")
def merged() -> tuple[list[str], list[str]]:
    return vocabularies.byte_level(600)


def test_byte_level_vocabulary(merged: tuple[list[str], list[str]], tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokens, merges = merged
    path = write_vocabulary(tmp_path / "m.gguf", tokens, pre="gpt-2", merges=merges)
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    expected = Tokenizer(models.BPE({token: id for id, token in enumerate(tokens)}, pairs))
    expected.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert ids_of(path, SAMPLE) == expected.encode(SAMPLE).ids


@pytest.mark.parametrize(
    ("model", "pre", "told", "bos", "expected"),
    [
        ("gpt2", "qwen2", None, 5, []),
        ("gpt2", "qwen2", True, 5, [5]),
        ("gpt2", "llama-bpe", None, 5, [5]),
        ("gpt2", "llama-bpe", None, None, [11]),
        ("gpt2", "llama-bpe", None, 1 << 30, [11]),
        ("gpt2", "llama-bpe", False, 5, []),
        ("llama", None, None, None, [1]),
        ("llama", None, None, 2, [2]),
        ("llama", None, False, 2, []),
    ],
)
def test_bos_of_gguf(
    model: str, pre: str | None, told: bool | None, bos: int | None, expected: list[int], tmp_path: Path
) -> None:
    tokens = [*(chr(ord("a") + n) for n in range(26)), "yz"]
    path = write_vocabulary(
        tmp_path / "m.gguf", tokens, model, pre=pre, merges=["y z"], add_bos=told, bos=bos, prefix=False
    )
    assert ids_of(path, "ca") == [*expected, 2, 0]


def test_bos_that_is_nowhere(tmp_path: Path) -> None:
    path = write_vocabulary(tmp_path / "m.gguf", ["a", "b", "ab"], pre="llama-bpe", merges=["a b"])
    refused(path, CheckpointError, "does not say which")


def test_user_defined_tokens_come_first_control_tokens_never(tmp_path: Path) -> None:
    tokens = ["a", "<x>", "<y>", "<", "x", "y", ">"]
    types = [NORMAL, USER_DEFINED, CONTROL, *[NORMAL] * 4]
    path = write_vocabulary(tmp_path / "m.gguf", tokens, "llama", types=types, add_bos=False, prefix=False)
    assert ids_of(path, "a<x><y>a") == [0, 1, 3, 5, 6, 0]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"pre": "some-new-kind", "merges": []}, UnsupportedModelError, "the pre-tokenizer 'some-new-kind'"),
        ({"model": "t5"}, UnsupportedModelError, "a tokenizer of the kind 't5'"),
        ({"model": "rwkv"}, UnsupportedModelError, "give the safetensors form"),
        ({"pre": "qwen2"}, CheckpointError, "tokenizer.ggml.merges is missing"),
        ({"pre": "qwen2", "merges": ["ab"]}, CheckpointError, "the merge 'ab' has no second part"),
        ({"pre": "qwen2", "merges": ["a c"]}, CheckpointError, "out of vocabulary"),
        ({"model": "llama", "scores": [0.5]}, CheckpointError, "tokenizer.ggml.scores has 1 entries for 2 tokens"),
        ({"model": "llama", "types": [1]}, CheckpointError, "tokenizer.ggml.token_type has 1 entries"),
        ({"model": "llama", "scores": [0.5, math.nan]}, CheckpointError, "tokenizer.ggml.scores holds nan"),
        ({"model": "llama", "tokens": ["a", "b" * 257]}, CheckpointError, "a token of 257 characters stands in it"),
        (
            {"model": "llama", "tokens": [str(n) for n in range(1 << 15)], "types": [4] * (1 << 15), "rows": 2},
            CheckpointError,
            "32768 of its tokens are user-defined",
        ),
        ({"model": "llama", "tokens": ["a", "a"]}, CheckpointError, "a token stands twice"),
        ({"model": "llama", "tokens": [b"\xff", b"a"]}, CheckpointError, "can't decode byte 0xff"),
        ({"model": "llama", "tokens": ["a", "c"]}, CheckpointError, "has no token for 'b', nor for its byte 0x62"),
    ],
)
def test_refused_vocabularies(
    options: dict[str, Any], error: type[GateNormError], says: str, tmp_path: Path
) -> None:
    tokens = options.pop("tokens", ["a", "b"])
    path = write_vocabulary(tmp_path / "m.gguf", tokens, **{"add_bos": False, "prefix": False, **options})
    refused(path, error, says, str(path))


@given(st.data())
def test_damaged_gguf(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    root = tmp_path_factory.getbasetemp()
    kind = data.draw(st.sampled_from(["gpt2", "llama"]))
    whole = root / f"whole-{kind}.gguf"
    if not whole.exists():
        tokens = ["<unk>", "<s>", "a", "b", "ab", "▁", "<0x41>", "x"]
        options = {"pre": "llama-bpe", "merges": ["a b"]} if kind == "gpt2" else {"scores": [0.5] * 8}
        write_vocabulary(whole, tokens, kind, types=[2, 3, 1, 1, 1, 1, 6, 4], bos=1, **options)
    content = bytearray(whole.read_bytes())
    end = content.index(b"token_embd.weight")
    start = content.index(b"tokenizer.ggml.model")
    for _ in range(data.draw(st.integers(1, 3))):
        new = data.draw(
            st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\0\0\0\x80"])
        )
        at = data.draw(st.integers(start, end - len(new)))
        content[at : at + len(new)] = new
    damaged = root / "damaged.gguf"
    damaged.write_bytes(content)
    try:
        ids_of(damaged, "ab A")
    except (CheckpointError, UnsupportedModelError) as error:
        assert "\n" not in str(error)


@given(st.integers(0, 13), st.integers(0, 1 << 64 - 1), st.binary(max_size=40), st.integers(0, 12))
@example(8, MOST_ENTRIES, b"", ARRAY)
@example(6, MOST_ENTRIES, b"", ARRAY)
@example(8, 1, b"\xff" * 8, ARRAY)
def test_arrays_hold_what_they_claim_or_are_refused(kind: int, count: int, rest: bytes, outer: int) -> None:
    value = Value(outer, struct.pack("<IQ", kind, count) + rest)
    for read in (read_strings, read_numbers):
        try:
            found: Sequence[object] = read(value)
        except ValueError:
            continue
        assert outer == ARRAY
        assert len(found) == count <= len(rest)


@given(st.lists(st.text("aé▁🎉\0 ", max_size=9)))
def test_strings_are_read_as_they_were_written(strings: list[str]) -> None:
    encoded = [text.encode() for text in strings]
    raw = struct.pack("<IQ", 8, len(encoded)) + b"".join(struct.pack("<Q", len(e)) + e for e in encoded)
    assert read_strings(Value(ARRAY, raw)) == strings


@given(
    st.text("ab▁c", max_size=12),
    st.dictionaries(st.text("ab▁", min_size=1, max_size=4), st.sampled_from([-1.0, -2.0, 0.5]), max_size=12),
)
def test_merges_the_best_score_first(text: str, scored: dict[str, float]) -> None:
    ids = {token: id for id, token in enumerate(scored)}
    scores = list(scored.values())
    pieces = list(text)
    while True:
        pairs = [(-scored[a + b], n) for n, (a, b) in enumerate(itertools.pairwise(pieces)) if a + b in scored]
        if not pairs:
            break
        _, n = min(pairs)
        pieces[n : n + 2] = [pieces[n] + pieces[n + 1]]
    assert merge_by_score(text, ids, scores) == pieces


@given(st.text("ab<>", max_size=30), st.lists(st.text("ab<>", min_size=1, max_size=3), max_size=4))
def test_parts_are_the_whole(text: str, tokens: list[str]) -> None:
    parts = cut_at(text, tokens)
    assert "".join(part for part, _ in parts) == text
    assert all(part in tokens if is_token else not any(t in part for t in tokens) for part, is_token in parts)


# what is asked for


def test_parts_have_as_many_tokens_as_are_asked_for(sotu: Path) -> None:
    text = built_in_text()
    with opened(sotu) as checkpoint:
        choosing, judging = encode_parts(checkpoint, text, 300)
        assert (choosing, judging) == (
            encode(checkpoint, text.choosing)[:300],
            encode(checkpoint, text.judging)[:300],
        )


def test_of_a_long_text_only_the_beginning_is_cut(sotu: Path) -> None:
    text = Text("long", built_in_text().choosing * 100, " " * 4000 + built_in_text().judging, "")
    with opened(sotu) as checkpoint:
        choosing, judging = encode_parts(checkpoint, text, 64)
        assert choosing == encode(checkpoint, text.choosing[:4000])[:64]
        assert judging == encode(checkpoint, text.judging)[:64]


def test_too_few_tokens(sotu: Path) -> None:
    text = Text("short.txt", "many words " * 40, "word " * 30, "")
    with opened(sotu) as checkpoint:
        length = len(encode(checkpoint, text.judging))
        assert FEWEST < length < 100
        with pytest.raises(TextError, match=rf"short\.txt has {length} tokens in one .* take --tokens {length}"):
            encode_parts(checkpoint, text, 100)
        assert len(encode_parts(checkpoint, text, length)[1]) == length
        with pytest.raises(TextError, match="are too few to measure on; take 16 or more"):
            encode_parts(checkpoint, text, FEWEST - 1)
        with pytest.raises(TextError, match=r"has 2 tokens .* give a longer text"):
            encode_parts(checkpoint, Text("tiny", "the", "the", ""), 100)


def test_tokens_without_a_row(merged: tuple[list[str], list[str]], sotu: Path, llama: Path, tmp_path: Path) -> None:
    shutil.copy(sotu / "tokenizer.json", llama)
    refused(llama, CheckpointError, "model.embed_tokens.weight has only", "belongs to another model", text=SAMPLE)
    tokens, merges = merged
    path = write_vocabulary(tmp_path / "m.gguf", tokens, pre="gpt-2", merges=merges, rows=100)
    refused(path, CheckpointError, "token_embd.weight has only 100 rows", text=SAMPLE)


def test_tokenizers_is_loaded_only_to_measure() -> None:
    code = "import sys, gatenorm_stream.measuring.tokens; sys.exit('tokenizers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
