"""An output, measured from its own bytes, has the loss that its source has without that attention."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gatenorm_stream
from gatenorm_stream.errors import CheckpointError, GateNormError, UnsupportedModelError
from gatenorm_stream.families.gguf import MARK
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.open import open_model
from gatenorm_stream.families.pruned import pruned_layers
from gatenorm_stream.measuring.forward import losses_of, run
from gatenorm_stream.measuring.numpy_decoder import NumpyDecoder, numpy_decoder
from gatenorm_stream.measuring.text import built_in_text
from gatenorm_stream.measuring.tokens import encode_parts
from gatenorm_stream.measuring.variants import Variant
from gatenorm_stream.sources.open import open_source
from tests import gguf_files
from tests.checkpoints import (
    HIDDEN,
    LAYERS,
    decode,
    llama_config,
    random_tensors,
    read_tensors,
    shapes_of,
    write_checkpoint,
    write_shard,
)
from tests.constants import Vectors, compensate, random_vectors, rounded

NEAR = 1e-5
"""Between two ways to add the same numbers in float32, in nats a token."""
FAR = 1e-2

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("BF16", {}),
    "llama-biases": ("BF16", {"attention_bias": True}),
    "llama-tied": ("F16", {"tie_word_embeddings": True}),
    "llama-rope": ("F32", {"rope_scaling": LLAMA3}),
    "qwen2": ("BF16", {"model_type": "qwen2"}),
    "mistral": ("F32", {"model_type": "mistral", "sliding_window": None}),
}
"""Weights' dtype, and what the config changes of a plain Llama's."""
GGUF_SOURCES = {
    "llama": ("llama", "F32", True),
    "llama-tied": ("llama", "Q8_0", False),
    "qwen2": ("qwen2", "BF16", True),
    "exaone": ("exaone", "F16", False),
}
"""Architecture, weights' type, and whether q, k and v have biases."""
NEIGHBOURS, LAST = (1, 2), (3,)


def write_source(root: Path, name: str) -> Path:
    dtype, changes = SOURCES[name]
    config = llama_config(**changes)
    biased = name in ("llama-biases", "qwen2")
    tensors = {
        key: 0.3 * values + (key.endswith("norm.weight"))
        for key, values in random_tensors(shapes_of(config, bias=biased)).items()
        if not (name == "qwen2" and key.endswith("o_proj.bias"))
    }
    return write_checkpoint(root, tensors, config, dtype=dtype, seed=1)


def write_gguf_source(path: Path, name: str) -> Path:
    architecture, dtype, biased = GGUF_SOURCES[name]
    content = gguf_files.tensors(gguf_files.shapes(bias=biased), dtype)
    if name == "llama-tied":
        del content["output.weight"]
    return gguf_files.write_gguf(path, content, architecture)


@contextmanager
def opened(path: Path) -> Iterator[NumpyDecoder]:
    with open_model(open_source(path), pruned=True) as model, numpy_decoder(model, threads=2) as decoder:
        yield decoder


def prune(source: Path, layers: tuple[int, ...], format: str, out: Path) -> Path:
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=layers, format=format), out)
    return out


def assert_measured_alike(source: Path, format: str, vectors: Vectors, held: Vectors | None, folder: Path) -> None:
    """Outputs without constants and with `vectors`. `held` are those as they are stored, None if they can't be."""
    layers, (choosing, judging) = tuple(vectors), np.random.default_rng(0).integers(0, 40, (2, 12))
    constant = Variant(layers, compensated=bool(held), constants=held)
    with opened(source) as decoder:
        expected = run(decoder, choosing, judging, [Variant(layers), constant])
    whole, silenced, replaced = (expected.losses, *(v.losses for v in expected.variants))
    assert abs(silenced - whole).max() > FAR
    assert held is None or min(abs(replaced - other).max() for other in (whole, silenced)) > FAR
    plain = prune(source, layers, format, folder / f"plain{source.suffix}")
    compensated = compensate(source, vectors, format, folder)
    gone = () if format == "zeroed" else layers
    for out, wanted in ((plain, silenced), (compensated, replaced)):
        with opened(out) as decoder:
            found, alone = run(decoder, choosing, judging), losses_of(decoder, judging)
        assert found.losses.mean() == pytest.approx(wanted.mean(), abs=NEAR)
        assert found.losses == pytest.approx(wanted, abs=10 * NEAR)
        assert alone == pytest.approx(found.losses, abs=NEAR)
        assert [s.layer for s in found.sublayers] == [n for n in range(LAYERS) if n not in gone]


@pytest.mark.parametrize("format", ["no-op", "transformers", "zeroed"])
@pytest.mark.parametrize("name", SOURCES)
def test_directories(name: str, format: str, tmp_path: Path) -> None:
    source, dtype = write_source(tmp_path / "source", name), SOURCES[name][0]
    vectors = random_vectors(LAST if name == "llama-tied" else NEIGHBOURS, HIDDEN)
    held = {n: decode(rounded(v, dtype), dtype, v.shape).astype(np.float32) for n, v in vectors.items()}
    holds = format != "zeroed" or name == "llama-biases"
    assert_measured_alike(source, format, vectors, held if holds else None, tmp_path)


@pytest.mark.parametrize("format", ["no-op", "zeroed"])
@pytest.mark.parametrize("name", GGUF_SOURCES)
def test_gguf(name: str, format: str, tmp_path: Path) -> None:
    source = write_gguf_source(tmp_path / "source.gguf", name)
    vectors = random_vectors(LAST if name == "llama-tied" else NEIGHBOURS, gguf_files.HIDDEN)
    holds = format != "zeroed" or name.startswith("llama")
    assert_measured_alike(source, format, vectors, vectors if holds else None, tmp_path)


def test_without_the_first_layers_attention(tmp_path: Path) -> None:
    """Which `transformers` alone can hold."""
    source, vectors = write_source(tmp_path / "source", "llama-rope"), random_vectors((0, 3), HIDDEN)
    assert_measured_alike(source, "transformers", vectors, vectors, tmp_path)


def test_the_tokens_are_the_sources(sotu: Path, tmp_path: Path) -> None:
    out = prune(sotu, (1, 6), "no-op", tmp_path / "out")
    parts = []
    for path in (sotu, out):
        with open_model(open_source(path), pruned=True) as model:
            parts.append(encode_parts(model.checkpoint, built_in_text(), 64))
    assert parts[0] == parts[1]


def test_an_original_opens_as_ever(llama: Path) -> None:
    plainly, welcome = (opened_as(llama, pruned) for pruned in (False, True))
    assert plainly.pruned == welcome.pruned == ()
    assert len(plainly.attention) == len(welcome.attention) == LAYERS
    assert plainly.config == welcome.config


def opened_as(path: Path, pruned: bool) -> Model:
    with open_model(open_source(path), pruned=pruned) as model:
        return model


@pytest.mark.parametrize("format", ["no-op", "transformers"])
def test_an_output_opens_only_where_it_is_welcome(format: str, llama: Path, tmp_path: Path) -> None:
    out = prune(llama, (1, 2), format, tmp_path / "out")
    with pytest.raises(UnsupportedModelError, match="was pruned by gatenorm-stream already; start from the orig"):
        opened_as(out, False)
    model = opened_as(out, True)
    assert (model.pruned, [a.layer for a in model.attention]) == ((1, 2), [0, 3])
    assert (model.family.model_type, model.config["model_type"]) == ("llama", "llama")
    assert model.multimodal is False


def change(out: Path, **changes: Any) -> None:
    """What config.json says of what was removed."""
    config = json.loads((out / "config.json").read_text())
    config["gatenorm"] |= changes
    (out / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pruned_layers": [1]}, "has no model.layers.2.self_attn.q_proj.weight"),
        (
            {"pruned_layers": [1, 2, 3]},
            "says that layer 3 has no attention, but holds model.layers.3.self_attn.q_proj.weight",
        ),
        ({"pruned_layers": [1, 4]}, r"gatenorm.pruned_layers=\[1, 4\], which are no layers of 4"),
        ({"pruned_layers": [2, 1]}, r"gatenorm.pruned_layers=\[2, 1\], which are no"),
        ({"pruned_layers": "all"}, "gatenorm.pruned_layers='all', which are no"),
        ({"model_type": None}, "which names no model_type"),
        ({"model_type": "nemotron-nas"}, "model_type='nemotron-nas', which is not known"),
    ],
)
def test_outputs_that_contradict_themselves(
    changes: Mapping[str, Any], says: str, llama: Path, tmp_path: Path
) -> None:
    out = prune(llama, (1, 2), "no-op", tmp_path / "out")
    change(out, **changes)
    with pytest.raises(GateNormError, match=says) as caught:
        opened_as(out, True)
    assert "\n" not in str(caught.value)


def test_a_constant_of_another_size(llama: Path, tmp_path: Path) -> None:
    out = compensate(llama, random_vectors((1,), HIDDEN), "transformers", tmp_path)
    held = read_tensors(out)
    name = "model.layers.1.self_attn.constant"
    held[name] = ("BF16", (HIDDEN - 1,), held[name][2][2:])
    for file in out.glob("*.safetensors*"):
        file.unlink()
    write_shard(out / "model.safetensors", held)
    with pytest.raises(CheckpointError, match=f"self_attn.constant in .* is BF16 of .{HIDDEN - 1}"), opened(out):
        pass


@pytest.mark.parametrize("layer", [1, 7])
def test_gguf_that_contradicts_itself(layer: int, tmp_path: Path) -> None:
    """The same file, that names another layer. Between an array's key and its first number stand 16 bytes."""
    out = prune(write_gguf_source(tmp_path / "source.gguf", "llama"), (2,), "no-op", tmp_path / "out.gguf")
    with pytest.raises(UnsupportedModelError, match="was pruned by gatenorm-stream already"):
        opened_as(out, False)
    data = bytearray(out.read_bytes())
    number = data.index(MARK.encode()) + len(MARK) + 16
    assert data[number : number + 4] == (2).to_bytes(4, "little")
    data[number] = layer
    out.write_bytes(data)
    says = {
        1: r"layer 1 has no attention, but holds blk\.1\.attn_",
        7: r"dropped_layers=\[7\], which are no layers",
    }
    with pytest.raises(CheckpointError, match=says[layer]):
        opened_as(out, True)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=6,
    )
    | st.lists(st.integers(-2, 5), max_size=6),
    st.integers(1, 5),
)
def test_layers_that_an_output_names(found: Any, layers: int) -> None:
    try:
        read = pruned_layers(found, layers, "key", "file")
    except CheckpointError as error:
        assert str(error).startswith("file has key=")
        return
    assert list(read) == found == sorted(set(found) & set(range(layers)))
    assert not any(isinstance(layer, bool) for layer in read)
