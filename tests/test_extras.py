"""What to type for an extra is true of this installation, and never a name on an index that is not ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gatenorm_stream import version
from gatenorm_stream.errors import GateNormError
from gatenorm_stream.scoring.cluster import check_address


class Distribution:
    def __init__(self, told: str | None) -> None:
        self.told = told

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self.told


@pytest.mark.parametrize("name", ["a checkout", "gatenorm_stream-0.1.0-py3-none-any.whl"])
def test_a_folder_or_wheel_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).mkdir()
    told = json.dumps({"url": (tmp_path / name).as_uri()})
    monkeypatch.setattr(version, "distribution", lambda _: Distribution(told))
    assert f"{tmp_path / name}[plot]" in version.install("plot").replace("'", "")
    assert version.install("plot").startswith("pip install ")


@pytest.mark.parametrize(
    "told", [None, "{", "[]", '{"url": "https://example.org/x.whl"}', '{"url": "file:///gone"}']
)
def test_what_is_not_known_is_not_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Any) -> None:
    monkeypatch.setattr(version, "distribution", lambda _: Distribution(told))
    monkeypatch.setattr(version, "__file__", str(tmp_path / "site-packages/gatenorm_stream/version.py"))
    assert version.install("dask") == "install gatenorm-stream with its extra [dask] from where you got it"


ADDRESSES = {
    "tls://far:8786": True,
    "tcp://127.0.0.1:8786": True,
    "127.0.0.9:8786": True,
    "tcp://[::1]:8786": True,
    "localhost:8786": True,
    "tcp://far:8786": False,
    "far:8786": False,
    "tcp://127.0.0.1.evil.org:8786": False,
    "tcp://127.0.0.1@evil.org:8786": False,
    "tcp://0.0.0.0:8786": False,
    "tcp://[::1": False,
    "far[::1]:8786": False,
    "ws://127.0.0.1:8786": False,
    "ucx://far:8786": False,
    "": False,
}


@pytest.mark.parametrize(("address", "allowed"), ADDRESSES.items(), ids=ADDRESSES)
def test_plain_tcp_stays_on_this_machine(address: str, allowed: bool) -> None:
    check_address(address, insecure=True)
    if allowed:
        check_address(address, insecure=False)
    else:
        with pytest.raises(GateNormError, match="give tls://HOST:PORT, or --dask-insecure"):
            check_address(address, insecure=False)
