"""That a pruned model really lacks what was removed."""

from __future__ import annotations

import json

from gatenorm_stream.families.table import FAMILIES
from tests.families import tiny
from tests.families.cases import Case

ROWS = {row.model_type: row for row in FAMILIES}
NO_NORM_BEFORE = ("olmo2", "olmo3", "exaone4")


def assert_cache_only_where_attention_is(cache, tokens: int, case: Case, layers: tuple[int, ...]) -> None:
    """After `tokens` tokens."""
    assert cache.get_seq_length() == tokens
    for index in case.attention:
        keys = getattr(cache.layers[index], "keys", None)
        if index in layers:
            assert keys is None or keys.shape[-1] == 1
        else:
            assert keys is not None
            assert keys.shape[-1] > 1


def assert_attention_is_absent(model, case: Case, layers: tuple[int, ...]) -> None:
    row = ROWS[case.family].of(json.loads(model.config.get_text_config().to_json_string()))
    assert (row.input_norm is None) == (case.kept_norm or case.family in NO_NORM_BEFORE)
    for index in case.attention:
        assert bool(list(tiny.attention(model, index).parameters())) == (index not in layers)
    if row.input_norm:
        for index in layers:
            assert not list(getattr(tiny.decoder_layers(model)[index], row.input_norm).parameters())
