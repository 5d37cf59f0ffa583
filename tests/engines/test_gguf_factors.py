"""Factors beside GGUF tensors, types that are not dequantised, and bytes behind the last tensor, in llama.cpp."""

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter

import gatenorm_stream
from tests.engines.llama_cpp import LlamaCpp

TOLERANCE = 1e-4
IDS = [1, 20, 44, 99, 7]
HEADER = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture")
ATTENTION = {"attn_q": 0.3, "attn_k": 1.7, "attn_v": 0.6, "attn_output": 1.5}
MLP = {"ffn_gate": 1.3, "ffn_up": 0.8, "ffn_down": 0.7}


def rewritten(
    source: Path, out: Path, *, architecture=None, factors=None, folded=None, one_bit=(), rounded=()
) -> Path:
    """`factors` stand beside tensors, `folded` in them; `one_bit` are in Q1_0, `rounded` as that has them."""
    reader = GGUFReader(source)
    before = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(out, architecture or before)
    for key, held in reader.fields.items():
        if key not in HEADER:
            own = key.startswith(f"{before}.") and architecture
            inner = held.types[-1] if held.types[0] == GGUFValueType.ARRAY else None
            name = key.replace(f"{before}.", f"{architecture}.", 1) if own else key
            writer.add_key_value(name, held.contents(), held.types[0], inner)
    for tensor in reader.tensors:
        numbers, module = np.array(tensor.data), tensor.name.removesuffix(".weight")
        if tensor.name in (*one_bit, *rounded):
            blocks = numbers.reshape(-1, 128)
            size = np.abs(blocks).mean(1).astype(np.float16)[:, None]
            if tensor.name in one_bit:
                bits = np.packbits(blocks > 0, axis=1, bitorder="little")
                raw = np.concatenate([size.view(np.uint8), bits], 1).reshape(len(numbers), -1)
                writer.add_tensor(tensor.name, raw, raw_dtype=GGMLQuantizationType.Q1_0)
                continue
            numbers = np.where(blocks > 0, size, -size).astype(np.float32).reshape(numbers.shape)
        writer.add_tensor(tensor.name, (numbers * np.float32((folded or {}).get(module, 1))).astype(numbers.dtype))
        if module in (factors or {}):
            writer.add_tensor(f"{module}.scale", np.array([factors[module]], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def of_layers(parts: dict[str, float]) -> dict[str, float]:
    return {f"blk.{layer}.{part}": factor for layer in (2, 5, 8) for part, factor in parts.items()}


def difference(a: Path, b: Path) -> float:
    found = [LlamaCpp(path, context=64).log_probabilities(IDS, 3072, IDS[3]) for path in (a, b)]
    return float(np.abs(found[0] - found[1]).max())


@pytest.mark.parametrize(
    ("architecture", "parts"),
    [("llama", ATTENTION | MLP), ("qwen2", ATTENTION), ("exaone", ATTENTION)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_factors_are_in_the_score_as_in_llama_cpp(architecture, parts, gguf, sotu, prune, tmp_path):
    base, factors = gguf(sotu), of_layers(parts)
    scaled = rewritten(base, tmp_path / "scaled.gguf", architecture=architecture, factors=factors)
    folded = rewritten(base, tmp_path / "folded.gguf", architecture=architecture, folded=factors)
    assert difference(scaled, folded) < TOLERANCE
    expected = [s.score for s in gatenorm_stream.score(folded)]
    assert [s.score for s in gatenorm_stream.score(scaled)] == pytest.approx(expected, rel=1e-6)
    for form in ("zeroed", "no-op") if parts == ATTENTION else ("zeroed",):
        outs = [prune(path, (5, 6), "--format", form) for path in (scaled, folded)]
        assert difference(*outs) < TOLERANCE


def test_deci_has_no_factors_in_its_mlp(gguf, sotu, prune, tmp_path):
    """Which is why `no-op` refuses them."""
    pruned = prune(gguf(sotu), (5, 6))
    scaled = rewritten(pruned, tmp_path / "scaled.gguf", factors={"blk.2.ffn_up": 0.5})
    assert difference(scaled, pruned) < TOLERANCE


def test_one_bit(gguf, sotu, prune, tmp_path):
    """Q1_0, which the gguf package can't dequantise. llama.cpp rounds what it multiplies it by to 8 bits."""
    names = [f"blk.{layer}.ffn_down.weight" for layer in range(0, 12, 3)]
    packed = rewritten(gguf(sotu), tmp_path / "packed.gguf", one_bit=names)
    plain = rewritten(gguf(sotu), tmp_path / "plain.gguf", rounded=names)
    assert gatenorm_stream.score(packed) == gatenorm_stream.score(plain)
    forms = [prune(packed, (5, 6), "--format", form) for form in ("no-op", "zeroed")]
    rounding = difference(packed, plain)
    assert difference(*forms) <= max(TOLERANCE, rounding)
    assert difference(packed, forms[1]) > 5 * rounding


def test_bytes_behind_the_last_tensor(gguf, sotu, prune, tmp_path):
    longer = tmp_path / "longer.gguf"
    longer.write_bytes(gguf(sotu).read_bytes() + b"x" * 5000)
    assert difference(longer, gguf(sotu)) == 0
    assert prune(longer, (5, 6)).read_bytes() == prune(gguf(sotu), (5, 6)).read_bytes()
