"""ONNX: the graph lacks the attention that is gone, and ONNX Runtime computes with it what torch computes."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.deploy.recipes import blocks
from tests.engines import stock

TOLERANCE = 1e-4
GONE = 2
MATRIX_PRODUCTS = 6  # of one attention: q, k, v, o, scores, values


@pytest.fixture(scope="module")
def printed(pruned) -> str:
    export, run = blocks("ONNX")
    export.run(pruned)
    return run.run(pruned)


@pytest.fixture(scope="module")
def exported(pruned, printed) -> Path:
    return pruned / "pruned-onnx" / "model.onnx"


@pytest.fixture(scope="module")
def whole_exported(whole) -> Path:
    export, _ = blocks("ONNX")
    export.run(whole)
    return whole / "pruned-onnx" / "model.onnx"


def operations(path: Path) -> Counter:
    model = onnx.load(path, load_external_data=False)
    assert not model.functions
    return Counter(node.op_type for node in model.graph.node)


def test_the_recipe_prints_what_torch_generates(printed, continuation):
    assert printed.splitlines()[-1] == continuation


def test_logits_equal_the_torch_model(exported, reference, whole_reference, ids):
    """With the text in two parts, the second of them on the cache of the first."""
    session = onnxruntime.InferenceSession(exported)
    shapes = {x.name: (1, int(x.shape[1]), 0, int(x.shape[3])) for x in session.get_inputs()[1:]}
    cache = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    rows = []
    for part in (ids[:9], ids[9:]):
        logits, *held = session.run(None, {"input_ids": np.array([part]), **cache})
        cache = dict(zip(cache, held, strict=True))
        rows.append(logits[0])
    actual, expected = np.concatenate(rows), stock.logits(reference, ids)
    assert stock.largest_difference(actual, expected) <= TOLERANCE
    assert stock.largest_difference(stock.logits(whole_reference, ids), expected) > 1


def test_attention_is_absent_from_the_graph(exported, whole_exported):
    here, before = operations(exported), operations(whole_exported)
    assert (here["Softmax"], before["Softmax"]) == (12 - GONE, 12)
    assert before["MatMul"] - here["MatMul"] == GONE * MATRIX_PRODUCTS


def test_so_are_its_cache_and_weights(exported, whole_exported):
    def cache_inputs(path):
        return len(onnx.load(path, load_external_data=False).graph.input) - 1

    def weights(path):
        return path.with_name("model.onnx.data").stat().st_size

    assert (cache_inputs(exported), cache_inputs(whole_exported)) == (2 * (12 - GONE), 2 * 12)
    parameters = (192 * 192 * 2 + 192 * 64 * 2 + 192) * GONE
    assert weights(whole_exported) - weights(exported) == pytest.approx(4 * parameters, rel=0.01)
