"""Every row says when the stock class gives its output projection a bias."""

import pytest
import torch
import transformers

from gatenorm_stream.families.table import FAMILIES
from tests.families.cases import CASES

pytestmark = pytest.mark.engines
KEYS = ("attention_bias", "use_bias", "bias")
ROWS = {row.model_type: row for row in FAMILIES}
FIRST = {case.family: case for case in reversed(CASES) if case.family in ROWS}


@pytest.mark.parametrize("changes", [{}, *({key: on} for key in KEYS for on in (True, False))], ids=str)
@pytest.mark.parametrize("case", FIRST.values(), ids=str)
def test_the_output_projection_has_a_bias_when_the_row_says_so(case, changes):
    options = {key: value for key, value in case.options.items() if key not in KEYS}
    config = getattr(transformers, case.config)(**options, **changes)
    with torch.device("meta"):
        model = getattr(transformers, case.model)(config)
    row = ROWS[case.family].of(config.to_dict())
    layer = model.get_submodule(row.layers)[case.attention[0]]
    output = layer.get_submodule(f"{row.attention}.{row.output}")
    said = {**{k: v for k, v in options.items() if k in KEYS}, **changes}
    assert row.has_output_bias(said) == (getattr(output, "bias", None) is not None)
