"""CTranslate2 runs the `zeroed` output, and gains nothing by it."""

from pathlib import Path

import ctranslate2
import numpy as np
import pytest
from ctranslate2.converters import TransformersConverter

from tests.deploy.recipes import Block, blocks
from tests.engines import stock

TOLERANCE = 1e-4
GONE = 2


@pytest.fixture(scope="module")
def printed(pruned) -> str:
    convert, run = blocks("CTranslate2")
    convert.run(pruned)
    return run.run(pruned)


@pytest.fixture(scope="module")
def converted(pruned, printed) -> Path:
    return pruned / "zeroed-ct2"


def test_the_recipe_prints_what_torch_generates(printed, continuation):
    assert printed.splitlines()[-1] == continuation


def test_logits_equal_the_torch_model(converted, reference, whole_reference, tokenizer, ids):
    generator = ctranslate2.Generator(str(converted), compute_type="float32")
    actual = np.array(generator.forward_batch([tokenizer.convert_ids_to_tokens(ids)]))[0]
    expected = stock.logits(reference, ids)
    assert stock.largest_difference(actual, expected) <= TOLERANCE
    assert stock.largest_difference(stock.logits(whole_reference, ids), expected) > 1


def test_only_equal_zeroes_are_saved(converted, whole):
    """Of equal tensors the converter keeps one."""
    convert, _ = blocks("CTranslate2")
    convert.run(whole)
    before, here = ((path / "model.bin").stat().st_size for path in (whole / "zeroed-ct2", converted))
    assert before - here == pytest.approx((GONE - 1) * 2 * 192 * 192, abs=100)


def test_its_form_cannot_omit_attention(pruned, tmp_path):
    spec = TransformersConverter(str(pruned / "zeroed"))._load()
    del spec.decoder.layer[9].self_attention
    spec.validate()
    spec.save(str(tmp_path))
    with pytest.raises(IndexError, match="layer_9/self_attention"):
        ctranslate2.Generator(str(tmp_path))


@pytest.mark.parametrize(
    ("option", "reason"), [("", "trust_remote_code"), ("--trust_remote_code", "No conversion is registered")]
)
def test_it_refuses_the_no_op_output(pruned, tmp_path, option, reason):
    """Rather than filling in random attention, as it would if it took the config for a stock one."""
    convert = f"ct2-transformers-converter --model pruned --output_dir {tmp_path}/out {option}"
    with pytest.raises(AssertionError, match=reason):
        Block("sh", convert).run(pruned)
