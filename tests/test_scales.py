"""Everything that an engine multiplies is in the score, and nothing that it leaves out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gatenorm_stream
from gatenorm_stream.errors import CheckpointError, UnsupportedModelError
from gatenorm_stream.families.open import open_model
from gatenorm_stream.floats import widen
from gatenorm_stream.formats.choice import choose_format
from gatenorm_stream.sources.open import open_source
from tests import gguf_files
from tests.checkpoints import (
    LAYERS,
    llama_config,
    llama_shapes,
    random_tensors,
    read_tensors,
    write_checkpoint,
    write_shard,
)

Stored = tuple[str, tuple[int, ...], bytes]
SEED = 3
BLOCK = [16, 8]


def layer_scores(path: Path) -> list[float]:
    return [s.score for s in gatenorm_stream.score(path)]


def float8(rng: np.random.Generator, shape: tuple[int, ...]) -> bytes:
    """Finite ones of E4M3, of either sign."""
    return (rng.integers(0, 0x7F, shape) | rng.integers(0, 2, shape) << 7).astype(np.uint8).tobytes()


def encode(scale: np.ndarray, dtype: str) -> bytes:
    """Powers of two, which every dtype holds."""
    if dtype == "F8_E8M0":
        return (np.log2(scale) + 127).astype(np.uint8).tobytes()
    if dtype == "BF16":
        return (scale.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return scale.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]).tobytes()


@dataclass(frozen=True)
class Spelling:
    """`grid` makes of a weight's shape the scale's, `block` how much of it each number multiplies."""

    name: str
    grid: Callable[[int, int], tuple[int, ...]]
    block: Callable[[int, int], tuple[int, int]]
    quantisation: dict[str, Any] | None = field(default_factory=lambda: {"quant_method": "fp8"})
    dtype: str = "F32"
    beside: tuple[str, ...] = ()


def blocks(rows: int, columns: int) -> tuple[int, int]:
    return -(-rows // BLOCK[0]), -(-columns // BLOCK[1])


def whole(rows: int, columns: int) -> tuple[int, int]:
    return rows, columns


def row(rows: int, columns: int) -> tuple[int, int]:
    return 1, columns


def tensors_of_groups(**weights: Any) -> dict[str, Any]:
    given = {"num_bits": 8, "type": "float", **weights}
    groups = {"group_0": {"targets": ["Linear"], "weights": given}}
    return {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": groups}


DEEPSEEK = {"quant_method": "fp8", "weight_block_size": BLOCK}
SPELLINGS = {
    "DeepSeek, blocks": Spelling("weight_scale_inv", blocks, lambda *_: (16, 8), DEEPSEEK),
    "DeepSeek, powers of two": Spelling("weight_scale_inv", blocks, lambda *_: (16, 8), DEEPSEEK, "F8_E8M0"),
    "transformers, one for all": Spelling("weight_scale_inv", lambda *_: (), whole),
    "compressed-tensors, blocks": Spelling(
        "weight_scale",
        blocks,
        lambda *_: (16, 8),
        tensors_of_groups(strategy="block", block_structure=BLOCK),
        "BF16",
    ),
    "compressed-tensors, blocks in words": Spelling(
        "weight_scale", blocks, lambda *_: (16, 8), tensors_of_groups(strategy="block", block_structure="16x8")
    ),
    "compressed-tensors, channel": Spelling(
        "weight_scale", lambda r, _: (r, 1), row, tensors_of_groups(strategy="channel"), "BF16"
    ),
    "compressed-tensors, tensor": Spelling(
        "weight_scale", lambda *_: (1,), whole, tensors_of_groups(strategy="tensor"), beside=("input_scale",)
    ),
    "compressed-tensors, group": Spelling(
        "weight_scale",
        lambda r, c: (r, c // 8),
        lambda *_: (1, 8),
        tensors_of_groups(strategy="group", group_size=8),
    ),
    "a number a row": Spelling("weight_scale", lambda r, _: (r,), row, {"quant_method": "quark"}, "F16"),
    "FBGEMM": Spelling("weight_scale", lambda r, _: (r, 1), row, {"quant_method": "fbgemm_fp8"}),
    "ModelOpt": Spelling(
        "weight_scale", lambda *_: (), whole, {"quant_method": "modelopt"}, beside=("input_scale", "k_scale")
    ),
    "Mistral": Spelling("qscale_weight", lambda *_: (), whole, beside=("qscale_act",)),
    "without a word in the config": Spelling("weight_scale", lambda *_: (1, 1), whole, None),
}


def write_float8(root: Path, spelling: Spelling | None, config: dict[str, Any]) -> tuple[Path, Path]:
    """The checkpoint in 8 bits with its scales, and the same numbers multiplied out, in F64."""
    rng, stored, plain = np.random.default_rng(SEED), dict[str, Stored](), {}
    for name, shape in llama_shapes().items():
        if "_proj" not in name:
            numbers = rng.standard_normal(shape).astype("<f4")
            stored[name], plain[name] = ("F32", shape, numbers.tobytes()), numbers.astype(float)
            continue
        raw = float8(rng, shape)
        plain[name] = widen(memoryview(raw), "F8_E4M3", shape).astype(float)
        stored[name] = ("F8_E4M3", shape, raw)
        if spelling:
            module, grid = name.removesuffix("weight"), spelling.grid(*shape)
            scale = np.exp2(rng.integers(-6, 2, grid))
            stored[module + spelling.name] = (spelling.dtype, grid, encode(np.asarray(scale), spelling.dtype))
            down, right = spelling.block(*shape)
            laid = np.asarray(scale).reshape(-(-shape[0] // down), -(-shape[1] // right))
            wide = np.repeat(np.repeat(laid, down, 0), right, 1)[: shape[0], : shape[1]]
            plain[name] = plain[name] * wide
            for other in spelling.beside:
                stored[module + other] = ("F32", (), np.float32(0.25).tobytes())
    root.mkdir()
    write_shard(root / "model.safetensors", stored)
    (root / "config.json").write_text(json.dumps(config))
    unquantised = {k: v for k, v in config.items() if k != "quantization_config"}
    return root, write_checkpoint(root.with_name("plain"), plain, unquantised, dtype="F64")


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_scales_of_8_bit_floats(spelling: Spelling, tmp_path: Path) -> None:
    config = llama_config(quantization_config=spelling.quantisation or ...)
    scaled, plain = write_float8(tmp_path / "m", spelling, config)
    assert layer_scores(scaled) == pytest.approx(layer_scores(plain), rel=1e-5)


@pytest.mark.parametrize("name", ["DeepSeek, blocks", "compressed-tensors, channel", "a number a row", "Mistral"])
def test_what_is_measured_is_scaled_too(name: str, tmp_path: Path) -> None:
    """The numpy decoder's logits are those of the same numbers multiplied out."""
    from gatenorm_stream.measuring.numpy_decoder import numpy_decoder

    spelling = SPELLINGS[name]
    paths = write_float8(tmp_path / "m", spelling, llama_config(quantization_config=spelling.quantisation))
    found = []
    for path in paths:
        with open_model(open_source(path)) as model, numpy_decoder(model) as decoder:
            stream = decoder.embed(np.arange(6)[None])
            idle = np.zeros(1, bool)
            for layer in range(LAYERS):
                stream = decoder.layer(layer, stream, idle, lambda *_: None, np.arange(1))
            found.append(decoder.logits(stream))
    assert found[0] == pytest.approx(found[1], rel=1e-3, abs=1e-3)


def renamed(new: str) -> Callable[[dict[str, Stored]], None]:
    def change(stored: dict[str, Stored]) -> None:
        for name in [n for n in stored if n.endswith("weight_scale_inv")]:
            stored[name.replace("weight_scale_inv", new)] = stored.pop(name)

    return change


def without(stored: dict[str, Stored]) -> None:
    for name in [n for n in stored if n.endswith("weight_scale_inv")]:
        del stored[name]


def without_one(stored: dict[str, Stored]) -> None:
    del stored["model.layers.2.self_attn.k_proj.weight_scale_inv"]


def shaped(shape: tuple[int, ...], dtype: str = "F32") -> Callable[[dict[str, Stored]], None]:
    def change(stored: dict[str, Stored]) -> None:
        raw = np.ones(shape, {"F32": "<f4", "I32": "<i4"}[dtype]).tobytes()
        stored["model.layers.1.self_attn.q_proj.weight_scale_inv"] = (dtype, shape, raw)

    return change


def plain_weight(stored: dict[str, Stored]) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    stored[name] = ("BF16", stored[name][1], bytes(2 * len(stored[name][2])))


NOT_SCORED: dict[str, tuple[Callable[[dict[str, Stored]], None], type[Exception], str]] = {
    "no scale at all": (without, CheckpointError, r"has no .*q_proj.weight_scale_inv or weight_scale.*promises"),
    "one scale lost": (without_one, CheckpointError, r"has no .*layers.2.self_attn.k_proj.weight_scale_inv"),
    "named scale": (renamed("scale"), UnsupportedModelError, r"q_proj.scale .* no scale of a known kind"),
    "named scale_weight": (renamed("scale_weight"), UnsupportedModelError, "q_proj.scale_weight"),
    "named weight_global_scale": (renamed("weight_global_scale"), UnsupportedModelError, "weight_global_scale"),
    "of another shape": (shaped((7, 3)), UnsupportedModelError, "no known kind of scale"),
    "of other blocks": (shaped((2, 2)), UnsupportedModelError, "no known kind of scale"),
    "of columns": (shaped((1, 32)), UnsupportedModelError, "no known kind of scale"),
    "of integers": (shaped((2, 4), "I32"), UnsupportedModelError, r"\(I32, \[2, 4\]\) is no known kind"),
    "beside plain numbers": (plain_weight, UnsupportedModelError, "is the scale of quantised numbers, but"),
}


@pytest.mark.parametrize(("change", "error", "says"), NOT_SCORED.values(), ids=NOT_SCORED.keys())
def test_never_scored_without_its_scale(change: Any, error: type[Exception], says: str, tmp_path: Path) -> None:
    config = llama_config(quantization_config=DEEPSEEK)
    root, _ = write_float8(tmp_path / "m", SPELLINGS["DeepSeek, blocks"], config)
    stored: dict[str, Stored] = dict(read_tensors(root))
    change(stored)
    write_shard(root / "model.safetensors", stored)
    with pytest.raises(error, match=says) as caught:
        gatenorm_stream.score(root)
    assert "--layers" in str(caught.value) or error is CheckpointError


def test_a_promise_of_modelopts_own_file(tmp_path: Path) -> None:
    root, _ = write_float8(tmp_path / "m", None, llama_config())
    assert layer_scores(root)  # nothing promises a scale: what is stored is what there is
    (root / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "FP8"}}')
    with pytest.raises(CheckpointError, match="promises"):
        gatenorm_stream.score(root)


# GGUF


def with_factors(content: dict[str, Any], factors: dict[str, float]) -> dict[str, Any]:
    return {**content, **{f"{m}.scale": (np.array([f], np.float32), "F32") for m, f in factors.items()}}


FACTORS = {
    "q": {"blk.3.attn_q": 0.01},
    "k": {"blk.0.attn_k": 0.25},
    "q and k": {"blk.1.attn_q": 3.0, "blk.1.attn_k": 0.5},
    "every layer": {f"blk.{n}.attn_{part}": 0.5 + n for n in range(4) for part in "qk"},
    "negative": {"blk.2.attn_q": -2.0},
    "zero": {"blk.2.attn_k": 0.0},
    "not of q and k": {"blk.2.attn_v": 0.1, "blk.1.ffn_up": 9.0, "blk.0.attn_output": 5.0},
}


@pytest.mark.parametrize("dtype", ["F32", "Q8_0", "MXFP4", "F16"])
@pytest.mark.parametrize("factors", FACTORS.values(), ids=FACTORS.keys())
def test_factors_of_gguf_tensors(factors: dict[str, float], dtype: str, tmp_path: Path) -> None:
    content = dict(gguf_files.tensors(gguf_files.shapes(), dtype))
    plain = layer_scores(gguf_files.write_gguf(tmp_path / "plain.gguf", content))
    scaled = layer_scores(gguf_files.write_gguf(tmp_path / "scaled.gguf", with_factors(content, factors)))
    gains = [
        abs(factors.get(f"blk.{n}.attn_q", 1.0) * factors.get(f"blk.{n}.attn_k", 1.0))
        for n in range(gguf_files.LAYERS)
    ]
    assert scaled == pytest.approx([s * g for s, g in zip(plain, gains, strict=True)], rel=1e-5)


def test_factors_of_fused_projections_and_of_nvfp4(tmp_path: Path) -> None:
    content, rng = dict(gguf_files.tensors(gguf_files.shapes(1))), np.random.default_rng(0)
    fused = np.concatenate([content.pop(f"blk.0.attn_{part}.weight")[0] for part in "qkv"])
    raw = rng.integers(0, 256, (len(fused), fused.shape[1] // 64, 36), dtype=np.uint8)
    raw[..., :4] = rng.integers(0x20, 0x60, raw[..., :4].shape)
    content["blk.0.attn_qkv.weight"] = (raw.reshape(len(fused), -1), "NVFP4")
    (plain,) = layer_scores(gguf_files.write_gguf(tmp_path / "plain.gguf", content, "phi3"))
    more = with_factors(content, {"blk.0.attn_qkv": 0.125})
    more["blk.0.attn_qkv.input_scale"] = (np.array([0.3], np.float32), "F32")
    (scaled,) = layer_scores(gguf_files.write_gguf(tmp_path / "scaled.gguf", more, "phi3"))
    assert plain > 0
    assert scaled == pytest.approx(plain / 64, rel=1e-5)


@pytest.mark.parametrize(("numbers", "dtype"), [([1.0, 2.0], "F32"), ([[1.0]], "F32")])
def test_a_factor_that_llama_cpp_would_not_take(numbers: Any, dtype: str, tmp_path: Path) -> None:
    content = dict(gguf_files.tensors(gguf_files.shapes()))
    content["blk.1.attn_q.scale"] = (np.array(numbers, np.float32), dtype)
    with pytest.raises(CheckpointError, match=r"blk\.1\.attn_q\.scale .* where llama.cpp takes one number"):
        gatenorm_stream.score(gguf_files.write_gguf(tmp_path / "m.gguf", content))


@pytest.mark.parametrize("form", ["no-op", "zeroed"])
def test_factors_go_with_their_layer(form: str, tmp_path: Path) -> None:
    factors = {f"blk.{n}.attn_{part}": 0.5 for n in (1, 2) for part in ("q", "k", "v", "output")}
    content = with_factors(dict(gguf_files.tensors(gguf_files.shapes())), factors)
    path = gguf_files.write_gguf(tmp_path / "m.gguf", content, rope__dimension_count=gguf_files.HEAD_DIM)
    out = tmp_path / "out.gguf"
    gatenorm_stream.prune(gatenorm_stream.plan(path, layers=[2], format=form), out)
    before, after = gguf_files.read(path)[1], gguf_files.read(out)[1]
    scales = {name for name in before if name.endswith(".scale")}
    gone = {name for name in scales if name.startswith("blk.2.")} if form == "no-op" else set()
    assert scales - set(after) == gone
    assert all(after[name] == before[name] for name in scales - gone)  # zeroed keeps them: 0 times a factor is 0
    gatenorm_stream.verify(out, against=path)


def test_factors_of_the_mlp_stop_deci_alone(tmp_path: Path) -> None:
    """llama.cpp multiplies by them in `llama`, and not in `deci` (tests/engines/test_gguf_factors.py)."""
    content = with_factors(dict(gguf_files.tensors(gguf_files.shapes())), {"blk.1.ffn_up": 0.5})
    path = gguf_files.write_gguf(tmp_path / "m.gguf", content, rope__dimension_count=gguf_files.HEAD_DIM)
    with open_model(open_source(path)) as model:
        choice = choose_format(model, (2,))
    assert choice.format.name == "zeroed"
    assert "blk.1.ffn_up.scale" in choice.passed_over[0][1].field


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_numpy_runs_a_gguf_with_factors_or_says_why_not(architecture: str, tmp_path: Path) -> None:
    from gatenorm_stream.measuring.numpy_decoder import numpy_decoder, numpy_obstacle

    content = dict(gguf_files.tensors(gguf_files.shapes()))
    parts = (
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        *(("ffn_up", "ffn_down") if architecture == "llama" else ()),
    )
    factors = {f"blk.{n}.{part}": 0.5 + n / 4 for n in (1, 2) for part in parts}
    folded = dict(content)
    for module, factor in factors.items():
        folded[f"{module}.weight"] = (content[f"{module}.weight"][0] * np.float32(factor), "F32")
    found: list[Any] = []
    options: dict[str, Any] = {"rope__dimension_count": gguf_files.HEAD_DIM}
    for name, held in (("scaled", with_factors(content, factors)), ("folded", folded)):
        path = gguf_files.write_gguf(tmp_path / f"{name}.gguf", held, architecture, **options)
        with open_model(open_source(path)) as model, numpy_decoder(model) as decoder:
            stream = decoder.embed(np.arange(6)[None])
            for layer in range(gguf_files.LAYERS):
                stream = decoder.layer(layer, stream, np.zeros(1, bool), lambda *_: None, np.arange(1))
            found.append(decoder.logits(stream))
    assert found[0] == pytest.approx(found[1], rel=1e-4, abs=1e-5)
    if architecture == "qwen2":  # where llama.cpp leaves factors of the MLP out
        more = with_factors(content, {"blk.1.ffn_up": 0.5})
        path = gguf_files.write_gguf(tmp_path / "more.gguf", more, architecture, **options)
        with open_model(open_source(path)) as model:
            assert "blk.1.ffn_up.scale" in (numpy_obstacle(model) or "")


# what an engine leaves out


@pytest.mark.parametrize("how", ["metadata", "tensors"])
def test_layers_of_prediction_in_a_gguf_are_no_candidates(how: str, tmp_path: Path) -> None:
    content = dict(gguf_files.tensors(gguf_files.shapes(4)))
    options: dict[str, Any] = {}
    if how == "metadata":
        options["nextn_predict_layers"] = 1
    else:
        content["blk.3.nextn.eh_proj.weight"] = content["blk.3.attn_q.weight"]
    path = gguf_files.write_gguf(tmp_path / "m.gguf", content, "glm4moe", **options)
    assert [s.layer for s in gatenorm_stream.score(path)] == [0, 1, 2]


@pytest.mark.parametrize("more", [1, 2])
def test_layers_behind_the_last_are_no_candidates(more: int, tmp_path: Path) -> None:
    """As DeepSeek stores its layers of prediction; the format `zeroed` leaves them as they are."""
    config = llama_config(num_nextn_predict_layers=more)
    source = write_checkpoint(tmp_path / "m", random_tensors(llama_shapes(LAYERS + more)), config)
    assert [s.layer for s in gatenorm_stream.score(source)] == list(range(LAYERS))
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[2], format="transformers"), tmp_path / "out")
    before, after = read_tensors(source), read_tensors(tmp_path / "out")
    assert all(after[n] == t for n, t in before.items() if f"layers.{LAYERS}." in n)


def test_a_hybrid_layer_that_the_config_gives_another_mixer(tmp_path: Path) -> None:
    shapes = llama_shapes() | {f"model.layers.{n}.self_attn.q_proj.weight": (64, 32) for n in range(LAYERS)}
    kinds = ["linear_attention", "full_attention", "linear_attention", "full_attention"]
    config = llama_config(
        model_type="qwen3_next", architectures=["Qwen3NextForCausalLM"], layer_types=kinds, head_dim=8
    )
    source = write_checkpoint(tmp_path / "m", random_tensors(shapes), config)
    assert [s.layer for s in gatenorm_stream.score(source)] == [1, 3]


def test_gpt2_may_divide_by_the_number_of_the_layer(tmp_path: Path) -> None:
    shapes = {f"transformer.h.{n}.attn.c_attn.weight": (16, 48) for n in range(3)}
    config = {"model_type": "gpt2", "n_layer": 3, "n_embd": 16, "n_head": 2}
    plain = write_checkpoint(tmp_path / "plain", random_tensors(shapes), config)
    divided = write_checkpoint(
        tmp_path / "divided", random_tensors(shapes), {**config, "scale_attn_by_inverse_layer_idx": True}
    )
    expected = [s / (n + 1) for n, s in enumerate(layer_scores(plain))]
    assert layer_scores(divided) == pytest.approx(expected, rel=1e-12)


BIASES = [".self_attn.q_proj.bias", ".self_attn.k_proj.bias", ".self_attn.v_proj.bias", ".self_attn.o_proj.bias"]
MLP_BIASES = [f".mlp.{part}_proj.bias" for part in ("gate", "up", "down")]
SWITCHES = {
    "off": ({"attention_bias": False}, []),
    "not said": ({}, []),
    "on": ({"attention_bias": True}, BIASES),
    "mlp off": ({"attention_bias": True, "mlp_bias": False}, BIASES),
    "mlp on": ({"mlp_bias": True}, MLP_BIASES),
    "both on": ({"attention_bias": True, "mlp_bias": True}, [*BIASES, *MLP_BIASES]),
    "mistral has none": ({"model_type": "mistral", "sliding_window": None, "attention_bias": True}, []),
    "mistral has none in its mlp": ({"model_type": "mistral", "sliding_window": None, "mlp_bias": True}, []),
    "qwen2 has three": ({"model_type": "qwen2"}, BIASES),
    "qwen2 has none in its mlp": ({"model_type": "qwen2", "mlp_bias": True, "attention_bias": False}, BIASES),
}


@pytest.mark.parametrize(("changes", "stay"), SWITCHES.values(), ids=SWITCHES.keys())
def test_biases_that_the_config_switches_off_stay_off(changes: dict, stay: list[str], tmp_path: Path) -> None:
    """`no-op` is read by engines that take whatever biases are in the file."""
    shapes = llama_shapes(bias=True)
    for n in range(LAYERS):
        for part, width in (("gate", 256), ("up", 256), ("down", 32)):
            shapes[f"model.layers.{n}.mlp.{part}_proj.bias"] = (width,)
    source = write_checkpoint(tmp_path / "m", random_tensors(shapes), llama_config(**changes))
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[2], format="no-op"), tmp_path / "out")
    after, before = read_tensors(tmp_path / "out"), read_tensors(source)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {n for n in after if n.endswith(".bias")} == {
        f"model.layers.{n}{part}" for n in range(LAYERS) for part in stay if not (n == 2 and "attn" in part)
    }
    assert (config["attention_bias"], config["mlp_bias"]) == (BIASES[0] in stay, MLP_BIASES[0] in stay)
    added = changes.get("model_type") == "qwen2"  # whose o_proj has no bias: the form wants one, of zeros
    for name in (n for n in after if n.endswith(".bias")):
        if added and "o_proj" in name:
            assert not any(after[name][2])
        else:
            assert after[name] == before[name]
    gatenorm_stream.verify(tmp_path / "out", against=source)


def test_a_constant_is_no_bias_that_the_config_switches_off(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "m", random_tensors(llama_shapes(bias=True)), llama_config())
    with open_model(open_source(source)) as model:
        assert not choose_format(model, (2,), "zeroed", compensated=True).holds_constants
    (source / "config.json").write_text(json.dumps(llama_config(attention_bias=True)))
    with open_model(open_source(source)) as model:
        assert choose_format(model, (2,), "zeroed", compensated=True).holds_constants
