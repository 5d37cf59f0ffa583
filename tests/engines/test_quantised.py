"""Quantised models, pruned by name and never unpacked, run in transformers as their library runs the source."""

from importlib.util import find_spec

import pytest
import torch

import gatenorm_stream
from tests.engines import quantised
from tests.families import tiny

LAYERS = (5, 6)
MAKERS = {
    quantised.bitsandbytes_4bit: ["bitsandbytes"],
    quantised.bitsandbytes_8bit: ["bitsandbytes"],
    quantised.compressed_tensors_int4: ["compressed_tensors"],
    quantised.torchao_int8: ["torchao"],
    quantised.fp8_blocks: [],
    quantised.gptq: ["gptqmodel", "optimum"],
    quantised.awq: ["gptqmodel"],
}
"""With the packages that their loading takes. gptqmodel wants a newer torch than the other engines."""


@torch.no_grad()
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_what_is_left_computes_what_it_did(make, sotu, prune, tmp_path):
    if missing := [name for name in MAKERS[make] if not find_spec(name)]:
        pytest.skip(f"{', '.join(missing)} is not installed")
    source = tmp_path / "source"
    make(sotu, source)
    out = prune(source, LAYERS)
    gatenorm_stream.verify(out, against=source)
    options = {"device_map": "cpu"} if "gptqmodel" in MAKERS[make] else {}
    tokens = torch.randint(3, 2000, (2, 12), generator=torch.Generator().manual_seed(1))
    stock = quantised.load(source, **options)
    whole = stock(tokens).logits
    with tiny.silenced(stock, LAYERS):
        expected = stock(tokens).logits
    found = quantised.load(out, trust_remote_code=True, **options)(tokens).logits
    assert torch.equal(found, expected)
    assert float((whole - expected).abs().max()) > 1
