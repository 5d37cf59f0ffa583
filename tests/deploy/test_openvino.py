"""OpenVINO: the graph lacks the attention that is gone, and computes on the CPU what torch computes."""

from collections import Counter
from pathlib import Path

import numpy as np
import openvino
import pytest

from tests.deploy.recipes import blocks
from tests.engines import stock

TOLERANCE = 1e-4
GONE = 2


@pytest.fixture(scope="module")
def printed(pruned) -> str:
    export, run = blocks("OpenVINO")
    export.run(pruned)
    return run.run(pruned)


@pytest.fixture(scope="module")
def exported(pruned, printed) -> Path:
    return pruned / "pruned-openvino" / "openvino_model.xml"


@pytest.fixture(scope="module")
def whole_exported(whole) -> Path:
    export, _ = blocks("OpenVINO")
    export.run(whole)
    return whole / "pruned-openvino" / "openvino_model.xml"


def operations(path: Path) -> Counter:
    return Counter(operation.get_type_name() for operation in openvino.Core().read_model(path).get_ops())


def test_the_recipe_prints_what_torch_generates(printed, continuation):
    assert printed.splitlines()[-1] == continuation


def test_logits_equal_the_torch_model(exported, reference, whole_reference, ids):
    """With the text in two parts, the second of them on the cache of the first."""
    model = openvino.compile_model(exported, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = model.create_infer_request()
    beam = np.zeros(1, np.int32)
    rows = [
        request.infer({"input_ids": np.array([part]), "beam_idx": beam})["logits"][0].copy()
        for part in (ids[:9], ids[9:])
    ]
    actual, expected = np.concatenate(rows), stock.logits(reference, ids)
    assert stock.largest_difference(actual, expected) <= TOLERANCE
    assert stock.largest_difference(stock.logits(whole_reference, ids), expected) > 1
    assert len(request.query_state()) == 2 * (12 - GONE)


def test_attention_is_absent_from_the_graph(exported, whole_exported):
    here, before = operations(exported), operations(whole_exported)
    attention = "ScaledDotProductAttention"
    assert (here[attention], before[attention]) == (12 - GONE, 12)
    assert before["MatMul"] - here["MatMul"] == 4 * GONE  # q, k, v, o
    assert before["ReadValue"] - here["ReadValue"] == 2 * GONE
