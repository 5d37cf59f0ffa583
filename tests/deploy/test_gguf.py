"""GGUF: converted, quantised and run by llama.cpp's own programs."""

import re
import shutil

import pytest
import torch
from gguf import GGUFReader
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from tests.deploy import places
from tests.deploy.gguf_report import CONTEXT, Report, report
from tests.deploy.recipes import Block, blocks

GONE = (9, 10)


@pytest.fixture(scope="module")
def told(pruned) -> dict[str, str]:
    """What the commands after the conversion printed, by the command."""
    convert, *others = blocks("GGUF")
    convert.run(pruned)
    places.set_token_scores(pruned)
    return {command: said for block in others for command, said in places.run_each_command(block, pruned).items()}


@pytest.fixture(scope="module")
def f16(pruned, told) -> Report:
    return report(pruned, "pruned.gguf")


@pytest.fixture(scope="module")
def whole_f16(whole) -> Report:
    blocks("GGUF")[0].run(whole)
    places.set_token_scores(whole)
    return report(whole, "pruned.gguf")


@torch.no_grad()
def torch_loss(model, tokenizer, text: str, windows: int) -> float:
    """By llama-perplexity's rule: over the second half of each window, which begins with <s>."""
    tokens = torch.tensor(tokenizer(text).input_ids)[: windows * CONTEXT].reshape(windows, CONTEXT)
    tokens[:, 0] = tokenizer.bos_token_id
    half = CONTEXT // 2
    logits = model(tokens).logits[:, half:-1]
    return cross_entropy(logits.flatten(0, 1), tokens[:, half + 1 :].flatten()).item()


def test_loss_is_the_torch_model_s(f16, whole_f16, pruned, reference, whole_reference, tokenizer):
    text = (pruned / "heldout.txt").read_text("utf-8")
    for told, model in ((f16, reference), (whole_f16, whole_reference)):
        windows = len(told.losses)
        assert windows > 20
        assert told.losses[-1] == pytest.approx(torch_loss(model, tokenizer, text, windows), abs=1e-3)
    assert f16.losses[20] > whole_f16.losses[20] + 0.1


def test_cache_and_file_shrink(f16, whole_f16, pruned, whole):
    kept = 12 - len(GONE)
    assert f16.cache / whole_f16.cache == pytest.approx(kept / 12, abs=0.01)
    saved = (whole / "pruned.gguf").stat().st_size - (pruned / "pruned.gguf").stat().st_size
    weights = 2 * len(GONE) * (2 * 192 * 192 + 2 * 192 * 64)
    assert saved == pytest.approx(weights, rel=0.02)


@pytest.mark.parametrize("name", ["pruned-Q4_K_M.gguf", "pruned-imatrix-Q4_K_M.gguf"])
def test_quantised_it_is_smaller_and_nearly_as_good(pruned, f16, name):
    quantised = report(pruned, name)
    assert (pruned / name).stat().st_size < 0.4 * (pruned / "pruned.gguf").stat().st_size
    assert abs(quantised.losses[20] - f16.losses[20]) < 0.05
    assert quantised.cache == f16.cache
    tensors = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(pruned / name).tensors}
    assert not [tensor for tensor in tensors if re.match(r"blk\.(9|10)\.attn_", tensor)]
    assert tensors["blk.11.attn_q.weight"] == "Q5_0"  # rows of 192
    assert tensors["blk.1.ffn_down.weight"] == "Q4_K"  # rows of 512


def test_the_importance_matrix_was_computed_and_used(pruned, told):
    matrix = {tensor.name for tensor in GGUFReader(pruned / "pruned.imatrix.gguf").tensors}
    assert "blk.11.attn_q.weight.in_sum2" in matrix
    assert not [name for name in matrix if re.match(r"blk\.(9|10)\.attn_", name)]
    plain, weighted = (
        {tensor.name: tensor.data.tobytes() for tensor in GGUFReader(pruned / name).tensors}
        for name in ("pruned-Q4_K_M.gguf", "pruned-imatrix-Q4_K_M.gguf")
    )
    assert plain["blk.1.ffn_down.weight"] != weighted["blk.1.ffn_down.weight"]


def test_llama_bench_runs_it(told):
    (said,) = [said for command, said in told.items() if command.startswith("llama-bench")]
    assert re.search(r"\| +tg32 \|", said)


def test_blocks_of_256_fit_where_rows_do(sotu, tmp_path):
    """A random model of hidden size 512: every matrix of every layer gets a K-quant."""
    torch.manual_seed(0)
    shape = {"hidden_size": 512, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 8}
    LlamaForCausalLM(LlamaConfig(**shape, vocab_size=3072)).save_pretrained(tmp_path / "MODEL")
    for file in sotu.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "MODEL")
    Block("sh", "gatenorm-stream MODEL --out pruned --layers 2 --format no-op").run(tmp_path)
    convert, quantise, *_ = blocks("GGUF")
    for block in (convert, quantise):
        block.run(tmp_path)
    types = {t.name: t.tensor_type.name for t in GGUFReader(tmp_path / "pruned-Q4_K_M.gguf").tensors}
    matrices = {
        name: kind for name, kind in types.items() if re.match(r"blk\.\d+\.(attn|ffn)_\w+(?<!norm)\.w", name)
    }
    assert len(matrices) == 3 * 7 + 3
    assert set(matrices.values()) == {"Q4_K", "Q6_K"}
