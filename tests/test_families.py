"""The rows, and names, shapes and layouts read through them. tests/families has the real models."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gatenorm_stream
from gatenorm_stream.checkpoint.safetensors import open_checkpoint
from gatenorm_stream.errors import CheckpointError, SelectionError, UnsupportedModelError
from gatenorm_stream.families.family import Family, Packing
from gatenorm_stream.families.heads import Heads
from gatenorm_stream.families.model import Model, layers_prefix, read_model
from gatenorm_stream.families.projections import rows, starts
from gatenorm_stream.families.table import FAMILIES
from gatenorm_stream.families.wrappers import WRAPPERS, Wrapper
from gatenorm_stream.sources.local import LocalSource
from tests.checkpoints import (
    HEADS,
    HIDDEN,
    KV_HEADS,
    LAYERS,
    llama_config,
    llama_shapes,
    random_tensors,
    read_tensors,
    write_checkpoint,
    write_latent,
)
from tests.conftest import Run

ROWS = {row.model_type: row for row in FAMILIES}
SHARED = {"model_type", "architectures"}


def read(root: Path) -> Model:
    with open_checkpoint(LocalSource(root)) as checkpoint:
        return read_model(checkpoint)


def renamed(shapes: Mapping[str, tuple[int, ...]], *changes: tuple[str, str]) -> dict[str, tuple[int, ...]]:
    names = {}
    for name, shape in shapes.items():
        for old, new in changes:
            name = name.replace(old, new)
        names[name] = shape
    return names


@given(group=st.integers(1, 4), keys=st.integers(1, 4), dim=st.integers(1, 5))
def test_layouts_are_those_of_the_stock_reshapes(group: int, keys: int, dim: int) -> None:
    heads = Heads(group * keys, keys, dim)
    fused = np.arange((heads.queries + 2 * keys) * dim)

    q, k, _ = np.split(fused, [heads.queries * dim, (heads.queries + keys) * dim])
    blocks = [part.reshape(-1, dim) for part in (q, k)]
    grouped = fused.reshape(keys, group + 2, dim)
    groups = [grouped[:, :-2].reshape(-1, dim), grouped[:, -2]]
    packings: tuple[tuple[Packing, list[np.ndarray]], ...] = (("blocks", blocks), ("groups", groups))
    for packing, parts in packings:
        assert starts(heads, packing) == tuple(tuple(part[:, 0].tolist()) for part in parts)
        assert rows(heads, packing) == (len(fused), len(fused))

    gated = np.arange(heads.queries * dim * 2).reshape(heads.queries, 2, dim)
    assert starts(heads, "separate", gated=True)[0] == tuple(gated[:, 0, 0].tolist())
    assert rows(heads, "separate", gated=True) == (gated.size, keys * dim)


def test_model_types_are_unique() -> None:
    assert len(ROWS) == len(FAMILIES)


@pytest.mark.parametrize("prefix", ["", "model.language_model.", "language_model.model.", "model.text_model."])
def test_layers_are_found_under_any_prefix(prefix: str) -> None:
    vision = "model.vision_tower.encoder.layers.0.self_attn.q_proj.weight"
    row = ROWS["llama"]
    names = [f"{prefix}layers.3.self_attn.q_proj.weight", f"{prefix}layers.3.mlp.up_proj.weight", vision]
    assert layers_prefix(names, row) == f"{prefix}layers."
    assert layers_prefix([vision], row) == "model.layers."


def multimodal(root: Path, text: Mapping[str, Any]) -> Path:
    shapes = renamed(llama_shapes(), ("model.", "language_model.model."), ("lm_head", "language_model.lm_head"))
    shapes["vision_tower.encoder.layers.0.self_attn.q_proj.weight"] = (4, 4)
    config = {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "text_config": text,
    }
    return write_checkpoint(root, random_tensors(shapes), config)


def test_the_text_part_of_a_multimodal_model(run: Run, llama: Path, tmp_path: Path) -> None:
    root = multimodal(tmp_path / "llava", llama_config())
    assert [s.heads for s in gatenorm_stream.score(root)] != []
    done = run(root, "--out", "out", "--layers", "1")
    assert done.returncode == 0, done.stderr
    assert "format no-op passed over: model_type=llava" in done.stdout
    out = read_tensors(tmp_path / "out")
    gone = {n for n in read_tensors(root) if ".layers.1.self_attn." in n or ".layers.1.input_layernorm." in n}
    assert out.keys() == read_tensors(root).keys() - gone
    assert len(gone) == 5
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["gatenorm"]["layers"] == "model.language_model.layers"
    assert config["gatenorm"]["architecture"] == "LlavaForConditionalGeneration"
    assert run("verify", "out", "--against", root).returncode == 0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model_type": "their_llava"}, "model_type=their_llava"),
        ({"architectures": ["LlavaForRanking"]}, "architectures=['LlavaForRanking']"),
    ],
    ids=str,
)
def test_a_multimodal_class_that_is_not_known(run: Run, tmp_path: Path, change: dict[str, Any], field: str) -> None:
    root = multimodal(tmp_path / "m", llama_config())
    config = json.loads((root / "config.json").read_text())
    (root / "config.json").write_text(json.dumps(config | change))
    done = run(root, "--out", "out", "--layers", "1", "--format", "transformers")
    assert done.returncode == 1
    assert f"transformers can't express this model: {field} stands in the way" in done.stderr
    assert list(tmp_path.iterdir()) == [root]
    done = run(root, "--out", "out", "--layers", "1")
    assert done.returncode == 0, done.stderr
    assert "format zeroed" in done.stdout
    assert field in done.stdout


@pytest.mark.parametrize("nested", [True, False])
def test_a_text_part_without_a_type_of_its_own(tmp_path: Path, nested: bool) -> None:
    """Qwen 2 VL: its text part is Qwen 2, said under text_config or, as published, in the config itself."""
    text = {k: v for k, v in llama_config().items() if k not in ("model_type", "architectures")}
    config = {"text_config": {**text, "model_type": "qwen2_vl_text"}} if nested else text
    config |= {"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"]}
    model = read(write_checkpoint(tmp_path / "m", random_tensors(llama_shapes()), config))
    assert (model.family, model.multimodal, model.layers) == (ROWS["qwen2"], True, LAYERS)


def test_stock_defaults_fill_a_text_config(tmp_path: Path) -> None:
    text = {k: v for k, v in llama_config().items() if k != "num_hidden_layers"}
    root = multimodal(tmp_path / "llava", text)
    with pytest.raises(CheckpointError, match=r"has no language_model\.model\.layers\.4\."):
        read(root)  # 32 layers, as LlamaConfig has by default


def test_a_text_config_of_an_unknown_family(run: Run, tmp_path: Path) -> None:
    root = multimodal(tmp_path / "m", {"model_type": "bert"})
    done = run("score", root)
    assert done.returncode == 1
    assert "text_config.model_type='bert'" in done.stderr


def test_a_name_without_the_models_prefix(tmp_path: Path) -> None:
    """As in the first GPT-2 checkpoints."""
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (40, 32)}
    for n in range(LAYERS):
        shapes |= {f"h.{n}.attn.c_attn.weight": (32, 96), f"h.{n}.attn.c_proj.weight": (32, 32)}
        shapes |= {f"h.{n}.ln_1.weight": (32,), f"h.{n}.ln_1.bias": (32,), f"h.{n}.mlp.c_fc.weight": (32, 64)}
    config = {"model_type": "gpt2", "n_layer": LAYERS, "n_embd": 32, "n_head": 4}
    model = read(write_checkpoint(tmp_path / "m", random_tensors(shapes), config))
    assert model.prefix == "h."
    assert model.heads == Heads(4, 4, 8)
    assert set(model.attention_tensors(2)) == {n for n in shapes if n.startswith(("h.2.attn.", "h.2.ln_1."))}


@pytest.fixture
def hybrid(tmp_path: Path) -> Path:
    """A Jamba whose layers 1 and 3 have attention."""
    shapes = {
        name.replace("self_attn", "mamba") if ".0." in name or ".2." in name else name: shape
        for name, shape in llama_shapes().items()
    }
    return write_checkpoint(tmp_path / "jamba", random_tensors(shapes), llama_config(model_type="jamba"))


@pytest.mark.slow
def test_only_softmax_attention_is_a_candidate(run: Run, hybrid: Path, tmp_path: Path) -> None:
    assert [s.layer for s in gatenorm_stream.score(hybrid)] == [1, 3]
    done = run(hybrid, "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "2 of them with softmax attention" in done.stdout
    assert run("verify", "out", "--against", hybrid).returncode == 0
    again = run(hybrid, "--out", "again", "--plan", "out/gatenorm.json")
    assert again.returncode == 0, again.stderr
    with pytest.raises(SelectionError, match="layer 2 has no softmax attention; these layers have: 1, 3"):
        gatenorm_stream.plan(hybrid, layers=[2])


def test_a_hybrid_without_any_attention(tmp_path: Path) -> None:
    shapes = renamed(llama_shapes(), ("self_attn", "mamba"))
    root = write_checkpoint(tmp_path / "m", random_tensors(shapes), llama_config(model_type="jamba"))
    with pytest.raises(CheckpointError, match="no layer with softmax attention"):
        read(root)


def test_a_qwen2_gets_the_bias_that_no_op_wants(run: Run, tmp_path: Path) -> None:
    shapes = {n: s for n, s in llama_shapes(bias=True).items() if not n.endswith("o_proj.bias")}
    config = llama_config(model_type="qwen2", use_sliding_window=False, sliding_window=4, layer_types=["full"])
    root = write_checkpoint(tmp_path / "qwen", random_tensors(shapes), config, dtypes=dict.fromkeys(shapes, "F16"))
    done = run(root, "--out", "out", "--layers", "2", "--format", "no-op")
    assert done.returncode == 0, done.stderr
    source, out = read_tensors(root), read_tensors(tmp_path / "out")
    new = {f"model.layers.{n}.self_attn.o_proj.bias" for n in (0, 1, 3)}
    assert out.keys() - source.keys() == new
    assert all(out[n] == ("F16", (HIDDEN,), bytes(2 * HIDDEN)) for n in new)
    assert all(out[n] == source[n] for n in out.keys() - new)
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert written["attention_bias"] is True
    assert written["gatenorm"]["architecture"] == "LlamaForCausalLM"
    assert not {"layer_types", "use_sliding_window"} & written.keys()
    assert run("verify", "out", "--against", root).returncode == 0


def test_a_qwen2_with_a_window_is_not_for_no_op(run: Run, tmp_path: Path) -> None:
    config = llama_config(model_type="qwen2", use_sliding_window=True, sliding_window=4)
    root = write_checkpoint(tmp_path / "qwen", random_tensors(llama_shapes()), config)
    done = run(root, "--out", "out", "--format", "no-op")
    assert done.returncode == 1
    assert "sliding_window=4 stands in the way" in done.stderr


def test_a_latent_has_no_stored_key_projection(tmp_path: Path) -> None:
    root = write_latent(tmp_path / "m")
    model = read(root)
    assert model.kv_bytes_per_token() == LAYERS * 2 * (8 + 2)
    with pytest.raises(UnsupportedModelError, match="--reading per-head or joint"):
        gatenorm_stream.score(root, reading="stored")


def test_a_latent_of_another_shape(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"kv_b_proj.weight in .* has shape \[36, 8\]"):
        read(write_latent(tmp_path / "m", v_head_dim=6))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_attention_heads": 5, "num_key_value_heads": 1}, "5 query and 1 key heads"),
        ({"num_key_value_heads": "2"}, "num_key_value_heads='2'"),
        ({"head_dim": 0}, "head_dim=0"),
        ({"num_key_value_heads": 4}, "has shape"),
    ],
)
def test_heads_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    root = write_checkpoint(tmp_path / "m", random_tensors(llama_shapes()), llama_config(**changes))
    with pytest.raises(CheckpointError, match=says):
        read(root)


def test_head_dim_is_read_from_the_shape(llama: Path) -> None:
    assert read(llama).heads == Heads(HEADS, KV_HEADS, 8)


Grid = Callable[[int], tuple[int, ...]]
FLOAT8 = {
    "block": (lambda rows: (-(-rows // 12), 2), {"weight_block_size": [12, 16]}),
    "row": (lambda rows: (rows, 1), {}),
    "tensor": (lambda rows: (), {}),
}


@pytest.mark.parametrize(("grid", "config"), FLOAT8.values(), ids=FLOAT8.keys())
@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_the_scale_of_8_bit_floats(tmp_path: Path, grid: Grid, config: dict, dtype: str) -> None:
    """Scaling one tensor's scale by 2 doubles the score, and a grid of another shape is refused."""
    import struct

    from tests.checkpoints import write_shard

    def write(name: str, factor: float, grid: Grid) -> Path:
        root = tmp_path / name
        root.mkdir()
        rng = np.random.default_rng(0)
        stored = {}
        for n, s in llama_shapes().items():
            numbers = rng.integers(0, 0x70, np.prod(s), dtype=np.uint8)
            stored[n] = (dtype, s, numbers.tobytes())
            if n.endswith("norm.weight"):
                stored[n] = ("F32", s, np.ones(s, "<f4").tobytes())
            if n.endswith(("q_proj.weight", "k_proj.weight")):
                values = [factor if "q_proj" in n else 1.0] * int(np.prod(grid(s[0])))
                stored[f"{n}_scale_inv"] = ("F32", grid(s[0]), struct.pack(f"<{len(values)}f", *values))
        write_shard(root / "model.safetensors", stored)
        (root / "config.json").write_text(json.dumps(llama_config(quantization_config=config)))
        return root

    one, two = (gatenorm_stream.score(write(str(f), f, grid)) for f in (1.0, 2.0))
    for a, b in zip(one, two, strict=True):
        assert b.score == pytest.approx(2 * a.score, rel=1e-6)
    with pytest.raises(UnsupportedModelError, match="no known kind of scale.* give --layers"):
        gatenorm_stream.score(write("bad", 1.0, lambda _: (7, 3)))


def test_the_command_lists_every_row(run: Run) -> None:
    listed: tuple[Family | Wrapper, ...] = (*FAMILIES, *WRAPPERS.values())
    rows_ = json.loads(run("families", "--json").stdout)
    assert [r["model_type"] for r in rows_] == [known.model_type for known in listed]
    for columns in (80, 40):
        table = run("families", COLUMNS=str(columns))
        assert table.returncode == 0
        assert all(len(line) <= columns for line in table.stdout.splitlines())
        for known in listed:
            assert known.name in table.stdout
