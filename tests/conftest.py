from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.started import COMMAND as COMMAND
from tests.started import UTF8, Done, Started

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

with suppress(ImportError):  # the environments of engines have no properties to try
    from hypothesis import settings

    settings.register_profile("quick", max_examples=20, deadline=None)
    settings.register_profile("thorough", max_examples=300, deadline=None)
    settings.load_profile("quick")

# a shell has what it runs in the background ignore Ctrl-C, and whatever a test starts would, too
signal.signal(signal.SIGINT, signal.default_int_handler)

FIXTURE = Path(__file__).parent.parent / "fixtures" / "sotu-5m"
GOLDEN = Path(__file__).parent / "golden"

Run = Callable[..., Done]


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a table, `make test` tries the first member and `make test-slow` the others."""
    tried = set()
    for item in items:
        table, of_a_table, _ = item.nodeid.partition("[")
        if of_a_table and table in tried:
            item.add_marker(pytest.mark.slow)
        tried.add(table)


@pytest.fixture(scope="session")
def started() -> Iterator[Started]:
    started = Started()
    yield started
    started.close()


@pytest.fixture
def run(started: Started, tmp_path: Path) -> Run:
    """Runs the command, from an empty directory, with no terminal."""

    def run(*args: object, **environment: str) -> Done:
        outside = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        variables = {**outside, "NO_COLOR": "1", "PYTHONUTF8": "1", **environment}
        return started.run([*map(str, args)], tmp_path, variables)

    return run


@pytest.fixture(scope="session")
def sotu() -> Path:
    """The fixture model: a trained Llama of 12 layers, in three shards."""
    return FIXTURE


@pytest.fixture(scope="session")
def tokenizer(sotu: Path) -> PreTrainedTokenizerFast:
    """The fixture model's, as transformers reads it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(sotu)


@pytest.fixture(scope="session")
def prune(started: Started, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """prune(source, layers, *options): the output of the command, made once a session."""

    @functools.cache
    def prune(source: Path, layers: tuple[int, ...], *options: str) -> Path:
        name = "out.gguf" if source.suffix == ".gguf" else "out"
        out = tmp_path_factory.mktemp("pruned") / name
        words = [str(source), "--out", str(out), "--layers", ",".join(map(str, layers)), *options]
        done = started.run(words, Path.cwd(), {**os.environ, **UTF8})
        assert done.returncode == 0, done.stderr
        return out

    return prune


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A random Llama of 4 layers in two shards."""
    return write_checkpoint(tmp_path / "llama", random_tensors(llama_shapes()), llama_config())


@pytest.fixture
def cell() -> Callable[..., None]:
    """cell(engine, version, family, case, difference, cell="ok"): an entry for docs/compatibility.md.

    Called last in a test, so that only what passed is written, to the folder that GATENORM_RESULTS names.
    """

    def cell(engine: str, version: str, family: str, case: str, difference: float, cell: str = "ok") -> None:
        if folder := os.environ.get("GATENORM_RESULTS"):
            path = Path(folder) / f"{engine}.json"
            entries = json.loads(path.read_text()) if path.exists() else []
            key = {"engine": engine, "version": version, "family": family, "case": case}
            entries = [e for e in entries if not key.items() <= e.items()]
            entries.append({**key, "largest_difference": difference, "cell": cell})
            path.write_text(json.dumps(sorted(entries, key=lambda e: (e["family"], e["case"])), indent=1) + "\n")

    return cell


def golden(name: str, text: str) -> None:
    """Compares with tests/golden/NAME; UPDATE_GOLDEN=1 writes it."""
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text("utf-8")
