"""A scheduler, workers and the command that trust one authority of their own, and whoever it did not sign."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.dask.clusters import Cluster

COMMAND = str(Path(sys.executable).with_name("gatenorm-stream"))
TLS = "DASK_DISTRIBUTED__COMM__TLS__"

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")


@dataclass(frozen=True)
class Authority:
    """What signs certificates, in `folder`; `member.pem` with its key is one that it signed."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Authority:
        """As docs/performance.md says."""
        folder.mkdir()
        for command in (
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca-key.pem -out ca.pem",
            "req -newkey rsa:2048 -nodes -subj /CN=member -keyout member-key.pem -out member.csr",
            "x509 -req -in member.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -out member.pem",
        ):
            subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
        return cls(folder)

    @property
    def options(self) -> tuple[object, ...]:
        return (
            *("--tls-ca-file", self.folder / "ca.pem"),
            *("--tls-cert", self.folder / "member.pem", "--tls-key", self.folder / "member-key.pem"),
        )


def client(trusts: Authority, shows: Authority) -> dict[str, str]:
    return {
        f"{TLS}CA_FILE": str(trusts.folder / "ca.pem"),
        f"{TLS}CLIENT__CERT": str(shows.folder / "member.pem"),
        f"{TLS}CLIENT__KEY": str(shows.folder / "member-key.pem"),
    }


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("tls") / "theirs")


@pytest.fixture(scope="module")
def cluster(ours: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), "--protocol", "tls", *ours.options)
    yield cluster
    cluster.stop()


def score(model: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [COMMAND, "score", str(model), "--json", "--quiet", *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)


def test_scores_over_tls_are_the_same(cluster: Cluster, ours: Authority, model: Path) -> None:
    assert cluster.address.startswith("tls://127.0.0.1:")
    there = score(model, "--dask", cluster.address, **client(ours, ours))
    assert there.returncode == 0, there.stderr
    assert there.stdout == score(model).stdout
    assert len({worker for worker, *_ in cluster.reads}) == 2


def test_whom_another_authority_signed_is_refused(
    cluster: Cluster, ours: Authority, theirs: Authority, model: Path
) -> None:
    """The command does not talk to their scheduler, nor ours to them."""
    before = len(cluster.reads)
    for environment in (client(theirs, ours), client(ours, theirs)):
        refused = score(model, "--dask", cluster.address, **environment)
        assert refused.returncode == 1, refused
        assert refused.stderr.startswith(f"error: {cluster.address} can't be reached")
        assert refused.stderr.count("\n") == 1
    assert len(cluster.reads) == before


def test_a_client_without_certificates_is_told_where_they_are_named(cluster: Cluster, model: Path) -> None:
    refused = score(model, "--dask", cluster.address)
    assert refused.returncode == 1
    assert "distributed.comm.tls" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_plain_tcp_is_not_answered(cluster: Cluster, model: Path) -> None:
    refused = score(model, "--dask", cluster.address.replace("tls://", "tcp://"))
    assert refused.returncode == 1
    assert "can't be reached" in refused.stderr
