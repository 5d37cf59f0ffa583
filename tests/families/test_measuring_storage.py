"""However a model is stored, what is measured is the same; what can't be read is told in a line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from gatenorm_stream.errors import CheckpointError, UnsupportedModelError
from gatenorm_stream.families.open import open_model
from gatenorm_stream.measuring.with_transformers import decode_with_transformers
from gatenorm_stream.sources.open import open_source
from tests.conftest import FIXTURE
from tests.families import tiny, wrapper_cases
from tests.families.cases import CASES
from tests.families.measured import behind_layers, expected_logits, losses, opened
from tests.hub.hub_repository import Repository
from tests.hub.hub_runs import environment
from tests.hub.hub_server import Hub

pytestmark = pytest.mark.engines
TOKENS = np.random.default_rng(1).integers(3, 120, (2, 11))
TOLERANCE = 1e-4


def of(name: str, cases=CASES):
    return next(case for case in cases if str(case) == name)


def measured(path: Path | str, tokens=TOKENS) -> np.ndarray:
    with opened(path) as decoder:
        return decoder.losses(behind_layers(decoder, tokens, [{}] * len(tokens)), tokens)


def whole(path: Path, case, tokens=TOKENS) -> np.ndarray:
    return losses(expected_logits(tiny.load(path, case, dtype=torch.float32), tokens, [{}] * len(tokens)), tokens)


@pytest.fixture
def changed(checkpoint, tmp_path):
    """changed(case, change, **config): a copy whose tensors `change` took, and whose config is changed."""

    def changed(case, change, **config) -> Path:
        path = tmp_path / f"changed-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(checkpoint(case), path)
        tensors = load_file(path / "model.safetensors")
        change(tensors)
        save_file(tensors, path / "model.safetensors", {"format": "pt"})
        text = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**text, **config}))
        return path

    return changed


@pytest.mark.parametrize("case", [of("mixtral"), of("llava-llama", wrapper_cases.CASES)], ids=str)
def test_sharded_is_as_unsharded(case, checkpoint, tmp_path):
    path = checkpoint(case)
    tiny.load(path, case).save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    assert np.array_equal(measured(tmp_path), measured(path))


def test_bfloat16_in_shards_is_as_transformers_reads_it():
    tokens = np.random.default_rng(2).integers(0, 3000, (2, 20))
    assert np.abs(measured(FIXTURE, tokens) - whole(FIXTURE, of("llama"), tokens)).max() <= TOLERANCE


RUN = """
import sys, numpy, torch
from tests.families.measured import behind_layers, opened
tokens = numpy.array([[int(t) for t in sys.argv[2].split(",")]])
with opened(sys.argv[1]) as decoder:
    print(decoder.losses(behind_layers(decoder, tokens, [{}]), tokens).tolist())
"""


def test_of_a_repository_each_byte_is_fetched_once(tmp_path):
    tokens = np.random.default_rng(3).integers(0, 3000, (1, 20))
    with Hub({"org/sotu": Repository(FIXTURE)}) as hub:
        done = subprocess.run(
            [sys.executable, "-c", RUN, "org/sotu", ",".join(map(str, tokens[0]))],
            env=environment(hub, tmp_path, HF_HUB_OFFLINE="0"),
            capture_output=True,
            text=True,
        )
        fetched = hub.log.sent(file="*.safetensors")
    assert done.returncode == 0, done.stderr
    assert np.abs(np.array(json.loads(done.stdout)) - measured(FIXTURE, tokens)).max() == 0
    stored = sum(file.stat().st_size for file in FIXTURE.glob("*.safetensors"))
    assert 0.9 * stored < fetched <= 1.01 * stored


def test_eight_bit_numbers_are_scaled(changed):
    case, block = of("deepseek_v3"), 32
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [block, block]}}
    exact = {}

    def quantise(tensors):
        for name, matrix in dict(tensors).items():
            if "proj" not in name or matrix.ndim != 2:
                continue
            scale = torch.rand(-(-matrix.shape[0] // block), -(-matrix.shape[1] // block)) / 100 + 0.01
            wide = scale.repeat_interleave(block, 0).repeat_interleave(block, 1)[: len(matrix), : matrix.shape[1]]
            tensors[name] = (matrix / wide).to(torch.float8_e4m3fn)
            tensors[name.replace("weight", "weight_scale_inv")] = scale
            exact[name] = tensors[name].float() * wide
        assert len(exact) > 20

    path = changed(case, quantise, **config)
    assert np.abs(measured(path) - whole(changed(case, lambda t: t.update(exact)), case)).max() <= TOLERANCE


def test_four_bit_experts_are_those_that_transformers_makes(changed):
    case = of("gpt_oss")
    exact = {}
    generator = torch.Generator().manual_seed(0)

    def quantise(tensors):
        for name, (experts, columns, rows) in {
            n: t.shape for n, t in tensors.items() if n.endswith("_proj")
        }.items():
            blocks = torch.randint(
                0, 256, (experts, rows, columns // 32, 16), dtype=torch.uint8, generator=generator
            )
            scales = torch.randint(121, 126, blocks.shape[:3], dtype=torch.uint8, generator=generator)
            exact[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).contiguous()
            assert exact[name].shape == tensors.pop(name).shape
            tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = blocks, scales
        assert len(exact) == 8

    path = changed(case, quantise, quantization_config={"quant_method": "mxfp4"})
    assert np.abs(measured(path) - whole(changed(case, lambda t: t.update(exact)), case)).max() <= TOLERANCE


@pytest.mark.parametrize("case", [of("qwen3_moe"), of("gemma2"), of("gpt2")], ids=str)
def test_only_the_layer_that_runs_has_weights(case, checkpoint):
    with opened(checkpoint(case)) as decoder:
        stream, seen = decoder.embed(TOKENS), []

        def there() -> list[bool]:
            layers = decoder._stock.layers
            return [not any(p.is_meta for p in (*layer.parameters(), *layer.buffers())) for layer in layers]

        def settle(_stream, _attention) -> None:
            seen.append(there())

        for number in range(decoder.layers):
            stream = decoder.layer(number, stream, np.zeros(2, bool), settle, np.arange(2))
        assert seen == np.eye(decoder.layers, dtype=bool).tolist()
        decoder.losses(stream, TOKENS)
        assert not any(there())
        for table in (decoder._stock.embedding, decoder._stock.head):
            assert table.weight.is_meta
        assert all(decoder._attention(number).settled is None for number in range(decoder.layers))


def test_idle_attention_is_not_computed(checkpoint):
    with opened(checkpoint(of("llama"))) as decoder:
        asked = []
        for layer in decoder._stock.layers:
            layer.self_attn.q_proj.register_forward_hook(lambda _m, inputs, _o: asked.append(len(inputs[0])))
        rows = [{}, {1: np.ones(64, np.float32), 2: np.ones(64, np.float32)}]
        behind_layers(decoder, TOKENS, rows)
        assert asked == [2, 1, 1, 2]


def test_many_rows_are_as_one(checkpoint, monkeypatch):
    from gatenorm_stream.measuring import transformers_decoder

    case = of("gemma2")
    expected = measured(checkpoint(case))
    monkeypatch.setattr(transformers_decoder, "TOKENS_AT_ONCE", 1)
    monkeypatch.setattr(transformers_decoder, "HEAD_NUMBERS", 64 * 7)
    assert np.abs(measured(checkpoint(case)) - expected).max() <= 1e-5


def drop(*endings):
    def change(tensors):
        for name in [n for n in tensors if n.endswith(endings)]:
            del tensors[name]

    return change


def cut(ending):
    def change(tensors):
        name = next(n for n in tensors if n.endswith(ending))
        tensors[name] = tensors[name][:-1].contiguous()

    return change


@pytest.mark.parametrize(
    ("case", "change", "message"),
    [
        ("llama", drop("layers.2.mlp.up_proj.weight"), "has no model.layers.2.mlp.up_proj.weight"),
        ("mixtral", drop("layers.2.block_sparse_moe.experts.1.w3.weight"), "layers.2.mlp.experts.gate_up_proj"),
        ("llama", drop("model.norm.weight"), "has no model.norm.weight"),
        ("llama", drop("lm_head.weight"), "has no lm_head.weight"),
        ("phi", drop("lm_head.bias"), "has no lm_head.bias"),
        ("llama", cut("layers.1.mlp.down_proj.weight"), "has shape"),
        ("llama", cut("embed_tokens.weight"), "knows 127 tokens, but the text has token 127"),
    ],
)
def test_what_is_missing_is_named(case, change, message, changed):
    tokens = np.full((1, 5), 127)
    with pytest.raises(CheckpointError, match=message) as raised:
        measured(changed(of(case), change), tokens)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"num_experts": 1 << 40}, CheckpointError, "more than any model has"),
        ({"rope_scaling": {"rope_type": "none of these"}}, UnsupportedModelError, "can't build LlamaForCausalLM"),
        ({"hidden_act": "none of these"}, UnsupportedModelError, "can't build LlamaForCausalLM"),
    ],
)
def test_a_config_that_builds_nothing_is_refused(config, error, message, changed):
    with pytest.raises(error, match=message) as raised:
        measured(changed(of("llama"), lambda _: None, **config))
    assert "\n" not in str(raised.value)


def test_sizes_at_the_top_of_a_config_as_published(changed, checkpoint):
    """Qwen 2 VL and 2.5 VL were published without a text_config."""
    path = changed(of("qwen2_vl-qwen2", wrapper_cases.CASES), lambda _: None)
    config = json.loads((path / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    text |= {"rope_theta": rope["rope_theta"], "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
    expected = measured(path)
    (path / "config.json").write_text(json.dumps({**text, **config}))
    assert np.array_equal(measured(path), expected)


def fuse_as_internlm2(tensors):
    for n in range(4):
        place = f"model.layers.{n}."
        q, k, v = (tensors.pop(f"{place}self_attn.{part}_proj.weight") for part in "qkv")
        tensors[f"{place}attention.wqkv.weight"] = torch.cat([q, k, v])
        tensors[f"{place}attention.wo.weight"] = tensors.pop(f"{place}self_attn.o_proj.weight")


def test_without_a_stock_class_it_is_refused(changed, checkpoint):
    with pytest.raises(UnsupportedModelError, match=r"InternLM 2\) can't be measured: transformers has no class"):
        measured(changed(of("llama"), fuse_as_internlm2, model_type="internlm2"))


def test_an_unknown_multimodal_model_is_refused(changed, checkpoint):
    text = json.loads((checkpoint(of("llama")) / "config.json").read_text())
    with pytest.raises(UnsupportedModelError, match="model_type='new_vl' is a multimodal model that is not known"):
        measured(changed(of("llama"), lambda _: None, model_type="new_vl", text_config=text))


def test_a_config_names_no_code(changed, checkpoint):
    """Neither remote code nor kernels: what would be fetched for these would fail without a network."""
    code = {"AutoConfig": "other/repository--code.Config", "AutoModelForCausalLM": "code.Model"}
    kernels = {"_attn_implementation": "org/kernel", "attn_implementation": "org/kernel", "use_kernels": True}
    path = changed(of("llama"), lambda _: None, auto_map=code, **kernels, _experts_implementation="org/kernel")
    assert np.array_equal(measured(path), measured(checkpoint(of("llama"))))


def test_torch_computes_on_as_many_threads_as_it_is_told(checkpoint):
    before = torch.get_num_threads()
    try:
        with open_model(open_source(checkpoint(of("llama")))) as model:
            decode_with_transformers(model)
            assert torch.get_num_threads() == before
            decode_with_transformers(model, threads=before + 1)
            assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_token_that_the_head_does_not_know(changed):
    """The embedding knows it. The same error as in numpy."""

    def cut(tensors):
        tensors["lm_head.weight"] = tensors["lm_head.weight"][:60].clone()

    with pytest.raises(CheckpointError, match=r"lm_head.weight in .* has 60 rows, but the text has token \d+"):
        measured(changed(of("llama"), cut))
