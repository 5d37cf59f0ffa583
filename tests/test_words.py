"""What is no model, or not all of one, is named in one line, with what to do; what is odd but whole is read."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gatenorm_stream
from gatenorm_stream.families.gguf_purpose import no_language_model
from tests import gguf_files
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint, write_shard
from tests.conftest import Run

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 4976698592\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>401</title></head></html>"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def one_line(run: Run, *arguments: object) -> str:
    done = run(*arguments)
    assert done.returncode == 1, done.stdout
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


# files that are something else


FILES: dict[str, tuple[str, bytes, str]] = {
    "a pointer for the weights": (SINGLE, POINTER, "is a Git LFS pointer"),
    "a pointer for the config": ("config.json", POINTER, "is a Git LFS pointer"),
    "a pointer for the tokenizer": ("tokenizer.json", POINTER, "run `git lfs pull`"),
    "a pointer for SentencePiece": ("tokenizer.model", POINTER, "run `git lfs pull`"),
    "a pointer with Windows' lines": (SINGLE, POINTER.replace(b"\n", b"\r\n"), "is a Git LFS pointer"),
    "an older pointer": (SINGLE, b"version https://hawser.github.com/spec/v1\n", "is a Git LFS pointer"),
    "a pointer of git-annex": (SINGLE, b"/annex/objects/SHA256E-s42--" + b"b" * 64, "git annex get"),
    "a web page": (SINGLE, PAGE, "is a web page"),
    "a web page in lower case": ("config.json", b"\n <html lang=en>", "is a web page"),
    "a refusal": (SINGLE, b'{"error":"Repository not found"}', "is a server's refusal"),
    "a refusal in words": (SINGLE, b"Invalid username or password.", "is a server's refusal"),
    "an answer in XML": (SINGLE, b"<?xml version='1.0'?><Error/>", "is a server's answer"),
    "a pickle in a zip": (SINGLE, b"PK\x03\x04" + bytes(60), "holds a pickle of torch"),
    "an older pickle": (SINGLE, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9", "holds a pickle of torch"),
    "an archive": (SINGLE, b"\x1f\x8b\x08" + bytes(60), "is a compressed archive"),
    "a GGUF file": (SINGLE, b"GGUF\x03\0\0\0" + bytes(60), "is a GGUF file, not a safetensors file"),
    "nothing": (SINGLE, b"", "is empty"),
    "room that was never filled": (SINGLE, bytes(4096), "never downloaded"),
}


@pytest.mark.parametrize(("name", "content", "says"), FILES.values(), ids=FILES.keys())
def test_files_that_are_something_else(name: str, content: bytes, says: str, run: Run, tmp_path: Path) -> None:
    root = write_checkpoint(tmp_path / "m", random_tensors(llama_shapes()), llama_config(), shards=1)
    (root / name).write_bytes(content)
    line = one_line(run, "score", root)
    assert says in line
    assert f"m/{name}" in line


def test_a_pointer_that_is_no_part_of_the_model_is_nobodys_business(tmp_path: Path) -> None:
    root = write_checkpoint(tmp_path / "m", random_tensors(llama_shapes()), llama_config())
    (root / "picture.png").write_bytes(POINTER)
    assert gatenorm_stream.score(root)


GGUF_FILES = {
    "a pointer": (POINTER, "is a Git LFS pointer"),
    "a web page": (PAGE, "is a web page"),
    "safetensors": (struct.pack("<Q", 2) + b"{}", "is a safetensors file, whatever its name"),
    "GGML": (b"lmgg" + bytes(60), "is of a form older than GGUF"),
    "GGJT": (b"tjgg\x03\0\0\0" + bytes(60), "is of a form older than GGUF"),
    "GGMF": (b"fmgg" + bytes(60), "is of a form older than GGUF"),
    "an archive": (b"7z\xbc\xaf\x27\x1c" + bytes(60), "is a compressed archive"),
    "nothing": (b"", "is empty"),
    "a pickle": (b"PK\x03\x04" + bytes(60), "holds a pickle"),
    "something else": (b"RIFF" + bytes(60), "it begins with b'RIFF', not with GGUF"),
}


@pytest.mark.parametrize(("content", "says"), GGUF_FILES.values(), ids=GGUF_FILES.keys())
def test_gguf_files_that_are_something_else(content: bytes, says: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    assert says in one_line(run, "score", tmp_path / "m.gguf")


# directories that hold no model, or a part of one


def adapter(root: Path) -> None:
    (root / SINGLE).unlink()
    (root / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    write_shard(root / "adapter_model.safetensors", {"a": ("F32", (1,), bytes(4))})


def adapter_alone(root: Path) -> None:
    adapter(root)
    (root / "config.json").unlink()


def without_config_of_the_adapter(root: Path) -> None:
    adapter(root)
    (root / "adapter_config.json").unlink()


def renamed(*names: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        content = (root / SINGLE).read_bytes()
        (root / SINGLE).unlink()
        for name in names:
            (root / name).write_bytes(content)

    return change


def unmerged(root: Path) -> None:
    tensors = {
        name.replace("q_proj.weight", "q_proj.base_layer.weight"): array
        for name, array in random_tensors(llama_shapes()).items()
    }
    shutil.rmtree(root)
    write_checkpoint(root, tensors, llama_config(), shards=1)


DIRECTORIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "an adapter with a config": (adapter, "is an adapter, not a model; merge it into its base model first"),
    "an adapter": (adapter_alone, "is an adapter, not a model"),
    "an adapter's weights": (without_config_of_the_adapter, "is an adapter, not a model"),
    "LoRA of diffusers": (renamed("pytorch_lora_weights.safetensors"), "is an adapter, not a model"),
    "an adapter in the model's own files": (unmerged, "which is not merged; call merge_and_unload()"),
    "shards without an index": (
        renamed("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        f"has all shards (model-00001-of-00002.safetensors ...) but no {INDEX}",
    ),
    "one of two shards": (
        renamed("model-00002-of-00002.safetensors"),
        f"has 1 of 2 shards and no {INDEX}; download model-00001-of-00002.safetensors and that",
    ),
    "one of very many": (renamed("model-00002-of-99999.safetensors"), "has 1 of 99999 shards"),
    "a file of another name": (renamed("weights.safetensors"), f"or name a single file {SINGLE}"),
    "Mistral's own form": (renamed("consolidated.safetensors"), "weights in Mistral's own form"),
    "HQQ's own form": (renamed("qmodel.pt"), "a model of HQQ's own form, which only hqq reads"),
    "pickles": (renamed("pytorch_model.bin"), "save the model as safetensors first"),
    "a GGUF file alone": (renamed("model-Q4_K_M.gguf"), "give one of its GGUF files"),
    "a GGUF file in capitals": (renamed("MODEL.GGUF"), "give one of its GGUF files"),
    "nothing": (renamed(), "has no weights"),
}


@pytest.mark.parametrize(("change", "says"), DIRECTORIES.values(), ids=DIRECTORIES.keys())
def test_directories_that_hold_no_model(
    change: Callable[[Path], None], says: str, run: Run, tmp_path: Path
) -> None:
    root = write_checkpoint(tmp_path / "m", random_tensors(llama_shapes()), llama_config(), shards=1)
    change(root)
    assert says in one_line(run, "score", root)


# GGUF files that are no language model

WEIGHTS = ["token_embd.weight", "blk.0.attn_q.weight"]
PURPOSES: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "mmproj": ({"general.type": "mmproj", "general.architecture": "clip"}, ["v.blk.0.attn_q.weight"], "(mmproj)"),
    "an older mmproj": ({"general.architecture": "clip"}, ["v.blk.0.attn_q.weight"], "(mmproj)"),
    "LoRA": (
        {"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora"},
        ["blk.0.attn_q.weight.lora_a"],
        "is an adapter (LoRA)",
    ),
    "an older LoRA": ({"general.architecture": "llama"}, ["blk.0.attn_q.weight.lora_a"], "is an adapter (LoRA)"),
    "imatrix": ({"general.type": "imatrix"}, ["blk.0.attn_q.weight.in_sum2"], "is an importance matrix"),
    "imatrix without a type": (
        {},
        ["blk.0.attn_q.weight.in_sum2", "blk.0.attn_q.weight.counts"],
        "is an importance matrix",
    ),
    "a vocabulary": ({"general.architecture": "llama", "llama.block_count": 32}, [], "holds a vocabulary"),
    "a vocabulary by its type": ({"general.type": "vocab"}, ["token_embd.weight"], "holds a vocabulary"),
    "a control vector": ({"general.architecture": "controlvector"}, ["direction.1"], "is a control vector"),
    "pictures": ({"general.architecture": "flux"}, ["double_blocks.0.img_attn.qkv.weight"], "no language model"),
    "speech": ({"general.architecture": "whisper"}, ["decoder.blocks.0.attn.query.weight"], "no language model"),
    "a language model": ({"general.architecture": "llama", "llama.block_count": 1}, WEIGHTS, ""),
    "a language model by its type": (
        {"general.type": "model", "general.architecture": "x", "x.block_count": 1},
        WEIGHTS,
        "",
    ),
    "a damaged one": ({"general.architecture": "llama"}, WEIGHTS, ""),
}


@pytest.mark.parametrize(("text", "names", "says"), PURPOSES.values(), ids=PURPOSES.keys())
def test_what_a_gguf_file_is_for(
    text: dict[str, Any], names: list[str], says: str, run: Run, tmp_path: Path
) -> None:
    words = no_language_model(text, names)
    assert says in (words or "")
    assert bool(words) == bool(says)
    if not words:
        return
    path = tmp_path / "m.gguf"
    path.write_bytes(bare_gguf(text, names))
    assert words in one_line(run, "score", path)


def bare_gguf(text: dict[str, Any], names: list[str]) -> bytes:
    def string(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    parts = [b"GGUF", struct.pack("<IQQ", 3, len(names), len(text))]
    for key, value in text.items():
        kind, raw = (8, string(value)) if isinstance(value, str) else (4, struct.pack("<I", value))
        parts += [string(key), struct.pack("<I", kind), raw]
    for number, name in enumerate(names):
        parts.append(string(name) + struct.pack("<IQIQ", 1, 8, 0, 32 * number))
    head = b"".join(parts)
    return head + bytes(-len(head) % 32) + bytes(32 * len(names))


# GGUF files under any name, and with anything behind them


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = gguf_files.tensors(gguf_files.shapes(2))
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    return gguf_files.write_gguf(path, content, rope__dimension_count=gguf_files.HEAD_DIM)


NAMES = [
    "sha256-0123456789abcdef",
    "model.GGUF",
    "Model.Gguf",
    "model.bin",
    "model.gguf.bak",
    "model",
    "llama3.1:8b",
    "model.safetensors",
    "model-00001-of-00002",
    "a model with spaces.q4",
    "模型",
]


@pytest.mark.parametrize("name", NAMES)
def test_gguf_files_under_any_name(name: str, gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    shutil.copy(gguf, path)
    assert gatenorm_stream.score(path) == gatenorm_stream.score(gguf)
    out = tmp_path / "out.gguf"
    gatenorm_stream.prune(gatenorm_stream.plan(path, drop=1), out)
    assert gatenorm_stream.verify(out, against=path).tensors


def test_a_link_to_a_blob(gguf: Path, tmp_path: Path) -> None:
    """As Ollama's store or a cache of the Hub has it."""
    (tmp_path / "blobs").mkdir()
    shutil.copy(gguf, tmp_path / "blobs" / "sha256-abc")
    (tmp_path / "latest").symlink_to("blobs/sha256-abc")
    assert gatenorm_stream.score(tmp_path / "latest") == gatenorm_stream.score(gguf)


def test_a_file_of_another_kind_is_still_no_directory(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("GGU")
    assert "is not a directory" in one_line(run, "score", tmp_path / "notes.txt")


BEHIND = {
    "zeros": bytes(4096),
    "a byte": b"x",
    "one short of a tensor's alignment": bytes(31),
    "one more than that": bytes(33),
    "another file": b"GGUF" + bytes(100),
    "a signature": b"-----BEGIN PGP SIGNATURE-----" * 20,
    "an odd number": bytes(12345),
    "ones": b"\xff" * 64,
}


@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND.keys())
def test_bytes_behind_the_last_tensor(behind: bytes, gguf: Path, run: Run, tmp_path: Path) -> None:
    """llama.cpp does not mind them; they are left out of the output, and that is said."""
    longer, out, plain = tmp_path / "m.gguf", tmp_path / "out.gguf", tmp_path / "plain.gguf"
    longer.write_bytes(gguf.read_bytes() + behind)
    assert gatenorm_stream.score(longer) == gatenorm_stream.score(gguf)
    done = run(longer, "--out", out, "--drop", "1")
    assert done.returncode == 0, done.stderr
    assert f"left out: the {len(behind)} bytes behind the last tensor of m.gguf" in " ".join(done.stdout.split())
    gatenorm_stream.verify(out, against=longer)
    gatenorm_stream.prune(gatenorm_stream.plan(gguf, drop=1), plain)
    assert out.read_bytes() == plain.read_bytes()


def test_a_file_cut_short_is_still_refused(gguf: Path, run: Run, tmp_path: Path) -> None:
    cut = tmp_path / "m.gguf"
    size = len(gguf.read_bytes())
    cut.write_bytes(gguf.read_bytes()[: size - int(np.prod((48, 256))) * 4])
    assert "truncated or damaged" in one_line(run, "score", cut)


def test_a_split_file_with_bytes_behind_a_part(run: Run, tmp_path: Path) -> None:
    content = gguf_files.tensors(gguf_files.shapes(2))
    first = gguf_files.write_gguf(tmp_path / "m.gguf", content, split=12, rope__dimension_count=gguf_files.HEAD_DIM)
    expected = gatenorm_stream.score(first)
    first.write_bytes(first.read_bytes() + bytes(4096))
    assert gatenorm_stream.score(first) == expected
    done = run(first, "--dry-run", "--drop", "1")
    assert f"left out: the 4096 bytes behind the last tensor of {first.name}" in " ".join(done.stdout.split())


def test_quantisation_in_json(tmp_path: Path) -> None:
    """What config.json says may be anything."""
    odds: list[Any] = [3, "fp8", [], {"config_groups": 3}, {"config_groups": {"a": 1}}, {"weight_block_size": "x"}]
    for odd in odds:
        root = tmp_path / str(abs(hash(json.dumps(odd))))
        write_checkpoint(root, random_tensors(llama_shapes()), llama_config(quantization_config=odd))
        assert gatenorm_stream.score(root)
