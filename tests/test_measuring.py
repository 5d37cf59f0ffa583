"""The streamed pass of Llama-shaped models, against a dense one in float64."""

from __future__ import annotations

import itertools
import json
import tempfile
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatenorm_stream.errors import CheckpointError, TextError, UnsupportedModelError
from gatenorm_stream.families.open import open_model
from gatenorm_stream.measuring import forward, numpy_decoder, products, study
from gatenorm_stream.measuring.forward import Outcome
from gatenorm_stream.measuring.memory import check_memory
from gatenorm_stream.measuring.numpy_decoder import NumpyDecoder, numpy_obstacle
from gatenorm_stream.measuring.rotary import Rotary, Yarn
from gatenorm_stream.measuring.sample import read_sample
from gatenorm_stream.measuring.variants import Variant
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.sources.open import open_source
from tests import gguf_files
from tests.checkpoints import decode, encode, llama_config, shapes_of, write_checkpoint, write_shard
from tests.dense_llama import DenseLlama

NEAR = 2e-4


@contextmanager
def opened(path: Path, threads: int = 2) -> Iterator[NumpyDecoder]:
    with open_model(open_source(path)) as model, numpy_decoder.numpy_decoder(model, threads=threads) as decoder:
        yield decoder


def run(path: Path, choosing: np.ndarray, judging: np.ndarray, variants: Sequence[Variant] = ()) -> Outcome:
    with opened(path) as decoder:
        return forward.run(decoder, choosing, judging, variants)


def obstacle(path: Path) -> str | None:
    with open_model(open_source(path)) as model:
        return numpy_obstacle(model)


def numbers(config: Mapping[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Large enough for attention and MLP to matter; norms around 1; biases where the config has them."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in shapes_of(config, bias=bool(config.get("attention_bias"))).items():
        found[name] = rng.standard_normal(shape) * (0.3 if len(shape) > 1 else 0.2) + (len(shape) == 1)
        if config.get("mlp_bias") and ".mlp." in name:
            found[name.replace(".weight", ".bias")] = rng.standard_normal(shape[0]) * 0.2
    return found


def stored(tensors: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    return {name: decode(encode(values, dtype), dtype, values.shape) for name, values in tensors.items()}


def tokens(config: Mapping[str, Any], length: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    choosing, judging = np.random.default_rng(seed).integers(0, config["vocab_size"], (2, length))
    return choosing, judging


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    keys, group, dim = draw(st.integers(1, 3)), draw(st.integers(1, 3)), 2 * draw(st.integers(1, 5))
    return llama_config(
        num_hidden_layers=draw(st.integers(1, 3)),
        num_key_value_heads=keys,
        num_attention_heads=keys * group,
        head_dim=dim,
        hidden_size=draw(st.integers(3, 40)),
        intermediate_size=draw(st.integers(1, 50)),
        vocab_size=draw(st.integers(2, 70)),
        attention_bias=draw(st.booleans()),
        mlp_bias=draw(st.booleans()),
        tie_word_embeddings=draw(st.booleans()),
        rope_theta=draw(st.sampled_from([100.0, 10000.0])),
    )


@settings(max_examples=10)
@given(
    config=configs(),
    dtype=st.sampled_from(["F64", "F32", "F16", "BF16"]),
    length=st.integers(2, 40),
    small=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_any_shape(config: dict[str, Any], dtype: str, length: int, small: bool, seed: int) -> None:
    """`small`: blocks of a few rows, groups of a few tokens."""
    tensors = numbers(config, seed)
    dense = DenseLlama(stored(tensors, dtype), config)
    choosing, judging = tokens(config, length, seed)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(products, "BLOCK_BYTES", 1 << 10)
            patch.setattr(numpy_decoder, "ACTIVATION_BYTES", 1)
            patch.setattr(numpy_decoder, "FEWEST_TOKENS", 3)
            patch.setattr(numpy_decoder, "LOOKED_UP", 2)
            patch.setattr(numpy_decoder, "LOGITS", 7)
            patch.setattr(products, "STRETCH_BYTES", 1 << 11)
            patch.setattr(products, "TILE", 5)
            patch.setattr("gatenorm_stream.measuring.attention.STRETCH", 3)
        path = write_checkpoint(Path(folder, "model"), tensors, config, dtype=dtype, seed=seed)
        with opened(path) as decoder:
            stream, both = decoder.embed(np.stack([choosing, judging])), np.arange(2)
            for layer in range(decoder.layers):
                stream = decoder.layer(layer, stream, both < 0, lambda before, attention: None, both)
            logits = decoder.logits(stream)
            losses = decoder.losses(stream, np.stack([choosing, judging]))
    for row, ids in enumerate((choosing, judging)):
        assert np.abs(logits[row] - dense.run(ids)[0]).max() <= NEAR
        assert np.abs(losses[row] - dense.losses(ids)).max() <= NEAR


CONFIG = llama_config(num_hidden_layers=5)
VARIANTS = (
    Variant((1, 3)),
    Variant((3, 1), compensated=True),
    Variant((1, 4), compensated=True),
    Variant((0, 1, 2, 3, 4)),
    Variant((0, 1, 2, 3, 4), compensated=True),
    Variant((4,)),
    Variant(()),
    Variant((1, 3), compensated=True),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DenseLlama]:
    tensors = numbers(CONFIG)
    path = write_checkpoint(tmp_path_factory.mktemp("measuring") / "model", tensors, CONFIG, dtype="F32")
    return path, DenseLlama(stored(tensors, "F32"), CONFIG)


def test_variants_are_what_they_say(model: tuple[Path, DenseLlama]) -> None:
    path, dense = model
    choosing, judging = tokens(CONFIG, 24)
    outcome = run(path, choosing, judging, VARIANTS)
    assert outcome.losses == pytest.approx(dense.losses(judging), abs=NEAR)
    for variant, found in zip(VARIANTS, outcome.variants, strict=True):
        replaced = (
            dense.means(choosing, variant.dropped) if variant.compensated else dict.fromkeys(variant.dropped, 0)
        )
        assert found.losses == pytest.approx(dense.losses(judging, replaced), abs=NEAR)
        assert found.constants.keys() == (replaced.keys() if variant.compensated else set())
        for layer, constant in found.constants.items():
            assert constant == pytest.approx(replaced[layer], abs=NEAR)


def test_sharing_rows_changes_nothing(model: tuple[Path, DenseLlama]) -> None:
    path, _ = model
    choosing, judging = tokens(CONFIG, 24)
    together = run(path, choosing, judging, VARIANTS)
    for variant, found in zip(VARIANTS, together.variants, strict=True):
        (alone,) = run(path, choosing, judging, [variant]).variants
        assert found.losses == pytest.approx(alone.losses, abs=1e-5)
        assert found.constants.keys() == alone.constants.keys()
        assert all(found.constants[n] == pytest.approx(alone.constants[n], abs=1e-5) for n in alone.constants)


def test_nothing_is_computed_twice(model: tuple[Path, DenseLlama]) -> None:
    """(1, 3) and (1, 4) share what is dropped in layer 1; rows for choosing end where no means are needed."""
    rows, busy, further = [], [], []

    class Watched:
        def __init__(self, decoder: NumpyDecoder) -> None:
            self.title, self.layers = decoder.title, decoder.layers
            self.embed, self.losses = decoder.embed, decoder.losses
            self._layer, self.added = decoder.layer, decoder.added

        def layer(self, number: int, stream: Any, idle: Any, settle: Any, onward: Any) -> Any:
            rows.append(len(stream))
            busy.append(int((~idle).sum()))
            further.append(len(onward))
            return self._layer(number, stream, idle, settle, onward)

    variants = [
        Variant((1, 3)),
        Variant((1, 4)),
        Variant((1, 3), compensated=True),
        Variant((1, 4), compensated=True),
    ]
    with opened(model[0]) as decoder:
        forward.run(Watched(decoder), *tokens(CONFIG, 8), variants)
    assert rows == [2, 5, 5, 8, 7]
    assert busy == [2, 3, 5, 6, 5]
    assert further == [2, 5, 5, 7, 5]


def test_little_memory_takes_more_passes(model: tuple[Path, DenseLlama], monkeypatch: pytest.MonkeyPatch) -> None:
    """Three choices, each plain and with constants, are nine rows beside the unpruned model's two."""
    scores, texts = [LayerScore(n, 5.0 - n, ()) for n in range(5)], study.Texts(*tokens(CONFIG, 8))
    found, hidden = {}, CONFIG["hidden_size"]
    for rows in (11, 10, 5, 1):
        monkeypatch.setattr(study, "STREAM_BYTES", rows * 4 * hidden * 8)
        with opened(model[0]) as decoder:
            passes = study.Passes(decoder, texts, hidden)
            found[rows] = study.study(passes, scores, draws=2, by="gate-norm")
    assert {rows: one.passes for rows, one in found.items()} == {11: 1, 10: 2, 5: 3, 1: 6}
    for one in found.values():
        assert [c.dropped for c in one.choices] == [c.dropped for c in found[11].choices]
        assert [c.loss for c in one.choices] == pytest.approx([c.loss for c in found[11].choices], abs=1e-5)
        assert [s.influence for s in one.sublayers] == [s.influence for s in found[11].sublayers]


def test_a_run_begins_where_an_earlier_one_kept_its_streams(model: tuple[Path, DenseLlama]) -> None:
    choosing, judging = tokens(CONFIG, 24)
    whole = run(model[0], choosing, judging, VARIANTS)
    with opened(model[0]) as decoder:
        before = forward.run(decoder, choosing, judging, whole=False, keeps=True).before
        begun = forward.run(decoder, choosing, judging, VARIANTS, looks=False, before=before)
    assert len(before) == decoder.layers
    assert not begun.before
    for one, other in zip(whole.variants, begun.variants, strict=True):
        assert other.losses == pytest.approx(one.losses, abs=1e-5)
        assert other.constants.keys() == one.constants.keys()
        assert all(other.constants[n] == pytest.approx(one.constants[n], abs=1e-5) for n in one.constants)


def test_given_constants_replace_the_means(model: tuple[Path, DenseLlama]) -> None:
    path, dense = model
    choosing, judging = tokens(CONFIG, 24)
    constants = {n: np.linspace(-1, 1, CONFIG["hidden_size"], dtype=np.float32) * n for n in (1, 2, 3)}
    variant = Variant((1, 3), compensated=True, constants=constants)
    (found,) = run(path, choosing, judging, [variant]).variants
    assert found.losses == pytest.approx(dense.losses(judging, {n: constants[n] for n in (1, 3)}), abs=NEAR)
    assert found.constants.keys() == {1, 3}


def test_statistics_are_those_of_each_token(model: tuple[Path, DenseLlama]) -> None:
    path, dense = model
    choosing, judging = tokens(CONFIG, 24)
    outcome = run(path, choosing, judging)
    assert [s.layer for s in outcome.sublayers] == list(range(5))
    for found, (x, a) in zip(outcome.sublayers, dense.run(choosing)[1], strict=True):
        cosines = [p @ (p + q) / np.linalg.norm(p) / np.linalg.norm(p + q) for p, q in zip(x, a, strict=True)]
        assert found.influence == pytest.approx(1 - np.mean(cosines), abs=1e-5)
        rest = a[1:]
        variance = ((rest - rest.mean(0)) ** 2).sum(-1).mean() / (rest**2).sum(-1).mean()
        assert found.constant == pytest.approx(1 - variance, abs=1e-5)
        assert found.mean == pytest.approx(rest.mean(0), abs=1e-5)


def test_progress_ends_with_the_head(model: tuple[Path, DenseLlama]) -> None:
    told: list[tuple[int, int]] = []
    with opened(model[0]) as decoder:
        forward.run(decoder, *tokens(CONFIG, 4), steps=lambda done, total: told.append((done, total)))
    assert told == [(n, 6) for n in range(7)]


@pytest.mark.parametrize("dropped", [(5,), (-1,)])
def test_a_layer_that_is_not_there(model: tuple[Path, DenseLlama], dropped: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="there is no layer"):
        run(model[0], *tokens(CONFIG, 4), [Variant(dropped)])


def test_rows_of_tokens_are_equally_long(model: tuple[Path, DenseLlama]) -> None:
    choosing, judging = tokens(CONFIG, 4)
    with pytest.raises(ValueError, match="give as many"):
        run(model[0], choosing, judging[1:])


def test_a_token_that_the_model_does_not_know(model: tuple[Path, DenseLlama]) -> None:
    choosing, _ = tokens(CONFIG, 4)
    with pytest.raises(CheckpointError, match=r"knows 40 tokens, but the text has token 40"):
        run(model[0], choosing, np.array([1, 2, 40, 3]))


def test_a_token_that_the_head_does_not_know(tmp_path: Path) -> None:
    """The embedding knows it; its loss would be whatever the memory held."""
    tensors = numbers(CONFIG)
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:20]
    path = write_checkpoint(tmp_path / "model", tensors, CONFIG, dtype="F32")
    choosing, _ = tokens(CONFIG, 4)
    with pytest.raises(CheckpointError, match=r"lm_head.weight in .* has 20 rows, but the text has token 39"):
        run(path, choosing, np.array([1, 2, 39, 3]))


def test_weights_that_are_no_numbers(tmp_path: Path) -> None:
    tensors = numbers(CONFIG)
    tensors["model.layers.2.mlp.up_proj.weight"][3, 4] = np.nan
    path = write_checkpoint(tmp_path / "model", tensors, CONFIG, dtype="F32")
    with pytest.raises(CheckpointError, match="is no number"):
        run(path, *tokens(CONFIG, 4))


def test_influence_that_is_no_number(tmp_path: Path) -> None:
    """Of a token that only the half for choosing has, so that no loss tells: it was taken for no influence."""
    tensors = numbers(CONFIG)
    choosing, _ = tokens(CONFIG, 8)
    tensors["model.embed_tokens.weight"][choosing[2], 0] = np.nan
    path = write_checkpoint(tmp_path / "model", tensors, CONFIG, dtype="F32")
    judging = choosing[choosing != choosing[2]][:6]
    with pytest.raises(CheckpointError, match=r"what attention does in layer 0 of .* is no number"):
        run(path, choosing[: len(judging)], judging)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(model: tuple[Path, DenseLlama], threads: int) -> None:
    with opened(model[0], threads) as decoder:
        found = forward.run(decoder, *tokens(CONFIG, 24), VARIANTS)
    expected = run(model[0], *tokens(CONFIG, 24), VARIANTS)
    assert all((a.losses == b.losses).all() for a, b in zip(found.variants, expected.variants, strict=True))


WINDOW = {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 3}


@pytest.mark.parametrize(
    ("changes", "windowed"),
    [
        ({"model_type": "mistral", "sliding_window": 5}, {0: 5, 1: 5}),
        ({"model_type": "mistral", "sliding_window": None}, {}),
        ({**WINDOW, "layer_types": ["sliding_attention", "full_attention"]}, {0: 3}),
        ({**WINDOW, "max_window_layers": 1}, {1: 3}),
        ({**WINDOW, "use_sliding_window": False}, {}),
    ],
)
def test_sliding_windows(
    changes: dict[str, Any], windowed: dict[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatenorm_stream.measuring.attention.STRETCH", 16)
    config = llama_config(num_hidden_layers=2, **changes)
    tensors = numbers(config)
    path = write_checkpoint(tmp_path / "model", tensors, config, dtype="F32")
    dense = DenseLlama(stored(tensors, "F32"), config, windows=windowed)
    choosing, judging = tokens(config, 40)
    assert run(path, choosing, judging).losses == pytest.approx(dense.losses(judging), abs=NEAR)


def test_biases_that_the_config_switches_off(tmp_path: Path) -> None:
    tensors = numbers(llama_config(attention_bias=True, mlp_bias=True))
    path = write_checkpoint(tmp_path / "model", tensors, llama_config(), dtype="F32")
    without = {name: values for name, values in stored(tensors, "F32").items() if not name.endswith(".bias")}
    choosing, judging = tokens(CONFIG, 8)
    expected = DenseLlama(without, llama_config()).losses(judging)
    assert run(path, choosing, judging).losses == pytest.approx(expected, abs=NEAR)


def test_8_bit_floats_with_their_scales(tmp_path: Path) -> None:
    """A block's numbers are small powers of two, which 8 bits hold exactly, times what stands beside them."""
    rng, config = np.random.default_rng(0), llama_config(quantization_config={"weight_block_size": [16, 8]})
    content, plain = {}, {}
    for name, shape in shapes_of(config).items():
        values = rng.standard_normal(shape) * 0.2 + (len(shape) == 1)
        if "_proj." in name:
            exponents, signs = rng.integers(4, 7, shape), rng.integers(0, 2, shape)
            grid = rng.uniform(0.5, 2, [-(-n // b) for n, b in zip(shape, (16, 8), strict=True)]).astype(np.float32)
            content[name] = ("F8_E4M3", shape, (signs << 7 | exponents << 3).astype(np.uint8).tobytes())
            content[f"{name}_scale_inv"] = ("F32", grid.shape, grid.tobytes())
            spread = np.kron(grid, np.ones((16, 8)))[: shape[0], : shape[1]]
            plain[name] = (1 - 2 * signs) * 2.0 ** (exponents - 7) * spread
        else:
            content[name] = ("F32", shape, encode(values, "F32"))
            plain[name] = decode(encode(values, "F32"), "F32", shape)
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_shard(tmp_path / "model.safetensors", content)
    choosing, judging = tokens(config, 12)
    expected = DenseLlama(plain, config).losses(judging)
    assert run(tmp_path, choosing, judging).losses == pytest.approx(expected, abs=NEAR)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "qwen3"}, "model_type=qwen3"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type='dynamic'"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "mscale": 0.7}}, "mscale=0.7"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
    ],
)
def test_what_numpy_does_not_run(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "model", numbers(llama_config()), llama_config(**changes))
    found = obstacle(path)
    assert found
    assert said in found
    assert "\n" not in found
    with pytest.raises(UnsupportedModelError, match="numpy does not run"), opened(path):
        pass


@pytest.mark.parametrize(
    "changes", [{"rms_norm_eps": -1}, {"rope_theta": "high"}, {"rope_theta": 1}, {"rope_theta": 0}]
)
def test_numbers_that_are_none(changes: dict[str, Any], tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "model", numbers(llama_config()), llama_config(**changes))
    with pytest.raises(CheckpointError, match=f"{next(iter(changes))}=.*must be a number above"):
        obstacle(path)


@pytest.mark.parametrize("theta", [1.0000000000000002, 1e20])
@pytest.mark.parametrize("context", [1e-20, 1, 1e20])
def test_yarn_at_its_extremes(theta: float, context: float) -> None:
    """Logarithms of zero and whole numbers beyond 64 bits ended in a traceback."""
    for fast, slow, factor in itertools.product((1e-20, 1e20), (1e-20, 1e20), (1e-20, 1e20)):
        rotary = Rotary(8, theta, factor=factor, scaling=Yarn(context, fast, slow))
        assert np.isfinite(rotary.turns(4)).all()


@pytest.mark.parametrize(
    ("hidden", "heads", "head_dim"), [(1 << 18, 1, 2), (4, 1 << 10, 1 << 8)], ids=["hidden", "heads"]
)
def test_a_wide_model_takes_fewer_tokens(hidden: int, heads: int, head_dim: int, tmp_path: Path) -> None:
    """Of a small file: 256 tokens took gigabytes."""
    config = llama_config(
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=1,
        head_dim=head_dim,
        intermediate_size=4,
        num_hidden_layers=1,
        vocab_size=4,
        max_position_embeddings=1 << 40,
    )
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes_of(config).items()}
    with open_model(open_source(write_checkpoint(tmp_path / "model", tensors, config))) as model:
        with pytest.raises(TextError, match=r"2048 tokens of .* GB at once, and .* take --tokens (\d+)") as caught:
            read_sample(model, None, 2048)
        fits = int(str(caught.value).split("--tokens ")[1].split()[0])
        with pytest.raises(CheckpointError, match="tokenizer"):
            read_sample(model, None, fits)
        with pytest.raises(UnsupportedModelError, match="no model is so wide"):
            check_memory(model, 2048, fits + 1)


@pytest.mark.parametrize("key", ["factor", "original_max_position_embeddings", "beta_fast", "beta_slow"])
@pytest.mark.parametrize("value", [1e-300, 1e300])
def test_numbers_of_no_model(key: str, value: float, tmp_path: Path) -> None:
    scaling = {"rope_type": "yarn", "factor": 2.0, key: value}
    path = write_checkpoint(tmp_path / "model", numbers(llama_config()), llama_config(rope_scaling=scaling))
    with pytest.raises(CheckpointError, match=f"{key}={value:.0e}".replace("+", r"\+") + ", and 1e-20 to"):
        obstacle(path)


@pytest.mark.slow
def test_memory_is_a_block_and_the_activations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = llama_config(hidden_size=256, num_attention_heads=4, num_key_value_heads=4, intermediate_size=1024)
    rng = np.random.default_rng(0)
    tensors = {name: rng.random(shape, np.float32) for name, shape in shapes_of(config).items()}
    path = write_checkpoint(tmp_path / "model", tensors, config, dtype="F32")
    monkeypatch.setattr(products, "BLOCK_BYTES", 1 << 18)
    with opened(path, threads=1) as decoder:
        ids = tokens(config, 16)
        forward.run(decoder, *ids)
        tracemalloc.start()
        forward.run(decoder, *ids)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    layer = 4 * sum(values.size for name, values in tensors.items() if ".layers.1." in name)
    assert peak < layer / 4


NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_output": "self_attn.o_proj",
    **{f"attn_{part}": f"self_attn.{part}_proj" for part in "qkv"},
    **{f"ffn_{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")},
}


def renamed(content: gguf_files.Tensors) -> dict[str, np.ndarray]:
    """Under the names of safetensors, as float64."""
    found = {}
    for name, tensor in content.items():
        *place, module, kind = name.replace("blk.", "model.layers.").rsplit(".", 2)
        module = NAMES.get(module, "lm_head" if module == "output" else module)
        found[".".join([*place, module, kind])] = gguf_files.numbers(tensor).astype(np.float64)
    return found


@pytest.mark.parametrize(
    ("architecture", "dtype", "metadata"),
    [
        ("llama", "F32", {}),
        ("llama", "Q8_0", {"rope__freq_base": 500}),
        ("qwen2", "BF16", {}),
        ("internlm2", "Q4_0", {}),
        ("xverse", "F16", {"rope__scaling__factor": 4}),
        ("exaone", "Q5_1", {"rope__scale_linear": 2}),
    ],
)
@pytest.mark.parametrize("extra", ["biased", "slowed"])
def test_gguf(architecture: str, dtype: str, metadata: Any, extra: str, tmp_path: Path) -> None:
    content = gguf_files.tensors(gguf_files.shapes(2, bias=extra == "biased"), dtype)
    divisors: np.ndarray | float = 1.0
    if extra == "slowed":
        divisors = np.linspace(1, 8, gguf_files.HEAD_DIM // 2).astype(np.float32)
        content["rope_freqs.weight"] = (divisors, "F32")
        del content["output.weight"]
    path = gguf_files.write_gguf(tmp_path / "model.gguf", content, architecture, **metadata)
    config = llama_config(
        num_hidden_layers=2,
        num_attention_heads=gguf_files.HEADS,
        num_key_value_heads=gguf_files.KV_HEADS,
        rope_theta=float(metadata.get("rope__freq_base", 10000)),
        tie_word_embeddings=extra == "slowed",
    )
    factor = metadata.get("rope__scaling__factor", metadata.get("rope__scale_linear", 1))
    pairs = architecture in ("llama", "internlm2", "xverse")
    dense = DenseLlama(renamed(content), config, pairs=pairs, divisors=divisors * factor)
    choosing, judging = np.random.default_rng(0).integers(0, gguf_files.VOCAB, (2, 12))
    variant = Variant((1,), compensated=True)
    outcome = run(path, choosing, judging, [variant])
    assert outcome.losses == pytest.approx(dense.losses(judging), abs=NEAR)
    expected = dense.losses(judging, dense.means(choosing, (1,)))
    assert outcome.variants[0].losses == pytest.approx(expected, abs=NEAR)


@pytest.mark.parametrize(
    ("architecture", "metadata", "tensor", "said"),
    [
        ("gemma", {}, None, "general.architecture='gemma'"),
        ("llama", {"rope__dimension_count": 32}, None, "llama.rope.dimension_count=32"),
        ("llama", {}, "rope_factors_long.weight", "rope_factors_long.weight"),
        ("llama", {}, "blk.0.ffn_gate_inp.weight", "blk.0.ffn_gate_inp.weight"),
    ],
)
def test_gguf_that_numpy_does_not_run(
    architecture: str, metadata: Any, tensor: str | None, said: str, tmp_path: Path
) -> None:
    content = gguf_files.tensors(gguf_files.shapes())
    if tensor:
        content[tensor] = (np.ones(32, np.float32), "F32")
    path = gguf_files.write_gguf(tmp_path / "model.gguf", content, architecture, **metadata)
    found = obstacle(path)
    assert found
    assert found.endswith(f"has {said}, which numpy does not run")
