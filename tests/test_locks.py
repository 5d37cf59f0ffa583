"""locks/ has by version and hash all that pyproject.toml asks for and what that needs in turn, and no more."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
HERE = {"run": ["build"], "dev": ["build", "dev"], "docs": ["build", "docs"]}
"""Of the environment of `make`: the groups in each, beside the dependencies of the package."""
LOCKS = {**HERE, **{name: ["build", name] for name in ("engines", "smollm2", "dask")}}
LINE = re.compile(
    r"(?P<what>[^\s\\#][^\\]*?) \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+    # via (?P<via>.*)\n"
)


@cache
def lines(name: str) -> tuple[re.Match[str], ...]:
    """Each with at least one hash, and nothing else in the file: no index, no option, no link."""
    text = (ROOT / "locks" / f"{name}.txt").read_text("utf-8")
    assert LINE.sub("", text) == ""
    return tuple(LINE.finditer(text))


def locked(name: str) -> list[Requirement]:
    return [Requirement(found["what"]) for found in lines(name)]


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def members(group: str) -> Iterator[Requirement]:
    for member in project()["dependency-groups"][group]:
        if isinstance(member, dict):
            yield from members(member["include-group"])
        else:
            yield Requirement(member)


def asked(name: str) -> list[Requirement]:
    wanted = [Requirement(each) for each in project()["project"]["dependencies"]]
    return [*wanted, *(member for group in LOCKS[name] for member in members(group))]


def needed(wanted: list[Requirement]) -> set[str]:
    """Their names, and those of what they need here in turn, as far as it is installed here."""
    found, left = set[str](), [(each.name, frozenset(each.extras)) for each in wanted]
    seen = set[tuple[str, frozenset[str]]]()
    while left:
        package = left.pop()
        if package in seen:
            continue
        seen.add(package)
        found.add(canonicalize_name(package[0]))
        try:
            requires = distribution(package[0]).requires or []
        except PackageNotFoundError:
            continue
        for each in map(Requirement, requires):
            extras = ("", *package[1])
            if not each.marker or any(each.marker.evaluate({"extra": extra}) for extra in extras):
                left.append((each.name, frozenset(each.extras)))
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_all_that_is_asked_for_is_locked_within_its_bounds(name: str) -> None:
    there = {canonicalize_name(each.name): each for each in locked(name)}
    for each in asked(name):
        pin = there[canonicalize_name(each.name)]
        (version,) = (s.version for s in pin.specifier if s.operator == "==")
        assert each.specifier.contains(Version(version)), each


@pytest.mark.parametrize("name", HERE)
def test_all_that_is_needed_is_locked(name: str) -> None:
    """Of other environments pip says it, as it installs them."""
    here = {canonicalize_name(e.name) for e in locked(name) if not e.marker or e.marker.evaluate()}
    assert needed(asked(name)) - here == set()


@pytest.mark.parametrize("name", LOCKS)
def test_nothing_else_is_locked(name: str) -> None:
    """Each is asked for by pyproject.toml, as it stands now, or by another one."""
    wanted = {canonicalize_name(each.name) for each in asked(name)}
    there = {canonicalize_name(each.name) for each in locked(name)}
    for each, found in zip(locked(name), lines(name), strict=True):
        by = {via.strip() for via in found["via"].split(",")}
        others = {canonicalize_name(via) for via in by if " " not in via} & there
        assert others - {canonicalize_name(each.name)} or canonicalize_name(each.name) in wanted, each


def test_the_locks_go_into_one_environment() -> None:
    pins = {name: {(e.name, str(e.marker)): str(e.specifier) for e in locked(name)} for name in HERE}
    for name in ("run", "docs"):
        both = pins[name].keys() & pins["dev"].keys()
        assert {each: pins[name][each] for each in both} == {each: pins["dev"][each] for each in both}
    assert pins["run"].keys() <= pins["dev"].keys()


@pytest.mark.parametrize("name", LOCKS)
def test_the_build_backend_is_locked(name: str) -> None:
    backend = {canonicalize_name(Requirement(each).name) for each in project()["build-system"]["requires"]}
    assert backend <= {canonicalize_name(each.name) for each in locked(name)}


def test_there_are_no_other_locks() -> None:
    assert {path.stem for path in (ROOT / "locks").iterdir()} == set(LOCKS)


def test_torch_is_the_build_for_the_cpu() -> None:
    """The other one brings some gigabytes of CUDA."""
    (torch,) = (each for each in locked("engines") if each.name == "torch")
    assert str(torch.specifier).endswith("+cpu")
