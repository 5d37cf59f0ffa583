"""A hook of mkdocs: its pages are the repository's own documents, at their own paths, and two made here.

    mkdocs serve -f docs/site/mkdocs.yml       at http://127.0.0.1:8000, new whenever a document changes
    mkdocs build -f docs/site/mkdocs.yml       into build/docs/site

Every warning of mkdocs is an error: a link or an anchor that leads nowhere, a page that can't be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from gatenorm_stream import errors
from gatenorm_stream.cli.help import sections_of
from gatenorm_stream.cli.main import app

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
OUTSIDE = ("README.md", "CONTRIBUTING.md", "RELEASE.md", "SECURITY.md", "CHANGELOG.md")
"""Documents that are not in docs/. README is the front page."""

PRUNE = ("prune", "gguf", "sources", "hub", "quantised")
RUN = ("run", "engines", "deploy", "compatibility")
EVIDENCE = ("evidence", "evidence-decoders", "performance", "reliability")
REFERENCE = ("cli", "api", "scoring")
ALONE = ("measure", "choosing", "architecture")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """A page that no section names stands at the end of the reference."""
    named = {*PRUNE, *RUN, *EVIDENCE, *REFERENCE, *ALONE}
    more = sorted({path.stem for path in (ROOT / "docs").glob("*.md")} - named)
    config.nav = [
        {"Start": "README.md"},
        {"Prune": _paths(PRUNE)},
        {"Measure": "docs/measure.md"},
        {"Run": _paths(RUN)},
        {"Choose how many": "docs/choosing.md"},
        {"Evidence": _paths(EVIDENCE)},
        {"Reference": _paths((*REFERENCE, *more))},
        {"Behind it": ["docs/architecture.md", *OUTSIDE[1:]]},
    ]
    return config


def _paths(names: Iterable[str]) -> list[str]:
    return [f"docs/{name}.md" for name in names]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    documents = [*(ROOT / name for name in OUTSIDE), *sorted((ROOT / "docs").glob("*.md"))]
    for path in sorted(_with_what_they_link_to(documents)):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    api = (HERE / "api.md").read_text("utf-8").replace("ERRORS", f"```text\n{errors.__doc__}```")
    files.append(File.generated(config, "docs/api.md", content=api))
    files.append(File.generated(config, "docs/cli.md", content="\n".join(_command_reference())))
    return files


def _with_what_they_link_to(documents: Iterable[Path]) -> set[Path]:
    """The documents, and every file within the repository that they or theirs lead to."""
    found: set[Path] = set()
    waiting = list(documents)
    while waiting:
        path = waiting.pop()
        if path not in found and path.is_file():
            found.add(path)
            if path.suffix == ".md":
                waiting += ((path.parent / link).resolve() for link in LINK.findall(path.read_text("utf-8")))
    return found


def _command_reference() -> Iterator[str]:
    group = typer.main.get_command(app)
    yield "# The command\n"
    with group.make_context("gatenorm-stream", [], resilient_parsing=True) as above:
        for name, command in group.commands.items():
            with command.make_context(name, [], parent=above, resilient_parsing=True) as ctx:
                yield f"## gatenorm-stream {name}\n\n{command.help}\n"
                for heading, rows in sections_of(command, ctx):
                    if rows:
                        yield f"| {heading} | |\n|---|---|"
                        yield from (f"| `{option}` | {text.replace('|', '&#124;')} |" for option, text in rows)
                        yield ""
                yield f"```sh\n{(command.epilog or '').strip()}\n```\n"
