"""The `zeroed` output is a stock checkpoint."""

import pytest

from tests.engines import stock

pytestmark = pytest.mark.engines
TOLERANCE = 1e-4


@pytest.mark.parametrize(
    ("name", "layers"), [("sotu", (1, 6, 11)), ("sotu", (0,)), ("mistral", (1, 2)), ("biased_llama", (3,))]
)
def test_equals_the_stock_model_without_that_attention(name, layers, prune, reference, ids, request):
    source = request.getfixturevalue(name)
    model = stock.load(prune(source, layers, "--format", "zeroed"))
    expected = stock.logits(reference(source, layers), ids)
    whole = stock.logits(reference(source, ()), ids)
    assert type(model) is type(reference(source, layers))
    assert stock.largest_difference(stock.logits(model, ids), expected) <= TOLERANCE
    assert stock.largest_difference(whole, expected) > 100 * TOLERANCE
