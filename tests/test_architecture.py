"""The order of imports that docs/architecture.md draws is the one that the code keeps."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import gatenorm_stream

PACKAGE = Path(gatenorm_stream.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
APART = {"runtime": "runs inside engines", "__main__": "starts the command", "__init__": "the public names"}
"""Rooms that stand outside the order."""
MOST_AT_THE_TOP = 14
LONGEST = 40


def rows(page: str) -> list[set[str]]:
    """The rows of the page's table of rooms, from the bottom of the house up."""
    table = page.partition("<!-- order -->")[2].partition("<!-- end -->")[0]
    found = [
        set(re.findall(r"`(\w+)/?`", line.split("|")[1])) for line in table.splitlines() if line.startswith("| `")
    ]
    assert found, "docs/architecture.md has no table of rooms"
    return found


def rooms_of(tree: ast.AST) -> set[str]:
    """The rooms of the package that a module imports from, wherever in it the import stands."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module="gatenorm_stream", names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module)) if module.startswith("gatenorm_stream."):
                found.add(module.split(".")[1])
            case ast.Import(names=names):
                found |= {a.name.split(".")[1] for a in names if a.name.startswith("gatenorm_stream.")}
    return found


def forbidden(package: Path, order: list[set[str]]) -> Iterator[str]:
    """A line for each import that runs up the order, or between two rooms of one row."""
    level = {room: height for height, row in enumerate(order) for room in row}
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        room = place.parts[0].removesuffix(".py")
        if room in APART:
            continue
        for other in sorted(rooms_of(ast.parse(path.read_text("utf-8"))) - {room}):
            if level[other] >= level[room]:
                yield f"{place.as_posix()} imports {other}"


def test_imports_run_one_way() -> None:
    assert list(forbidden(PACKAGE, rows(PAGE.read_text("utf-8")))) == []


def test_the_page_names_every_room_once() -> None:
    there = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    named = [room for row in rows(PAGE.read_text("utf-8")) for room in sorted(row)]
    assert sorted(named) == sorted(there - APART.keys())


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("planning", "from gatenorm_stream.writing.record import read_record"),
        ("scoring", "def late():\n    from gatenorm_stream.formats.choice import FORMATS"),
        ("sources", "import gatenorm_stream.names, gatenorm_stream.api"),
        ("cli", "from gatenorm_stream import api"),
    ],
)
def test_an_import_that_runs_up_is_found(tmp_path: Path, room: str, line: str) -> None:
    (tmp_path / room).mkdir()
    (tmp_path / room / "wrong.py").write_text(line)
    (found,) = forbidden(tmp_path, rows(PAGE.read_text("utf-8")))
    assert found.startswith(f"{room}/wrong.py imports ")


def test_few_modules_stand_at_the_top() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_AT_THE_TOP


@pytest.mark.parametrize("room", sorted(p.parent for p in PACKAGE.rglob("__init__.py")), ids=lambda p: p.name)
def test_a_room_says_in_one_sentence_what_it_is_for(room: Path) -> None:
    said = ast.get_docstring(ast.parse((room / "__init__.py").read_text("utf-8")))
    assert said
    assert len(re.findall(r"\.(\s|$)", said.partition("\n\n")[0])) == 1


def own_lines(function: ast.FunctionDef) -> int:
    """Of its body: what it is called with and what its docstring says are not counted."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda path: path.stem)
def test_no_function_of_the_command_is_long(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert {f.name: own_lines(f) for f in functions if own_lines(f) > LONGEST} == {}
