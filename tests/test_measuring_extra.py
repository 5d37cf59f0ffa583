"""Families that numpy does not run, where torch and transformers are not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gatenorm_stream.errors import UnsupportedModelError
from gatenorm_stream.families.open import open_model
from gatenorm_stream.measuring.with_transformers import decode_with_transformers
from gatenorm_stream.sources.open import open_source


def test_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, sotu: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setenv("USE_HUB_KERNELS", "NO")
    with open_model(open_source(sotu)) as model, pytest.raises(UnsupportedModelError) as raised:
        decode_with_transformers(model)
    assert "[measure]" in str(raised.value)
    assert "\n" not in str(raised.value)
