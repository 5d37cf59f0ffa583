"""The site: the repository's own documents, laid out as they are there, and two pages made here (API, command).

    python docs/site/build.py FOLDER       the pages are in FOLDER/site

Every warning of mkdocs is an error: a link or an anchor that leads nowhere, a page that can't be read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from gatenorm_stream import errors
from gatenorm_stream.cli.help import sections_of
from gatenorm_stream.cli.main import app

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")

GUIDE = ("measure", "choosing", "sources", "gguf", "engines", "deploy", "hub")
REFERENCE = ("cli", "api", "scoring", "compatibility")
BEHIND = ("evidence", "evidence-decoders", "performance", "reliability", "architecture")


def main(folder: Path) -> int:
    source = folder / "source"
    shutil.rmtree(source, ignore_errors=True)
    for path in ("README.md", "CONTRIBUTING.md", *(p.relative_to(ROOT) for p in (ROOT / "docs").glob("*.md"))):
        _copy(ROOT / path, source)
    api = (HERE / "api.md").read_text("utf-8").replace("ERRORS", f"```text\n{errors.__doc__}```")
    (source / "docs" / "api.md").write_text(api, encoding="utf-8")
    shutil.copy(HERE / "wide.css", source)
    (source / "docs" / "cli.md").write_text("\n".join(_command_reference()), encoding="utf-8")
    added = {"docs_dir": str(source), "nav": _nav({p.stem for p in (source / "docs").glob("*.md")})}
    config = folder / "mkdocs.yml"
    config.write_text(
        (HERE / "mkdocs.yml").read_text("utf-8") + "".join(f"{k}: {json.dumps(v)}\n" for k, v in added.items()),
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "-f", config]
    return subprocess.run(command, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}).returncode


def _copy(path: Path, source: Path) -> None:
    """A document and what it links to within the repository, under the same paths."""
    target = source / path.relative_to(ROOT)
    if target.exists() or not path.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)
    if path.suffix == ".md":
        for link in LINK.findall(path.read_text("utf-8")):
            _copy((path.parent / link).resolve(), source)


def _nav(pages: set[str]) -> list[object]:
    """A page that no section names stands at the end of the guide."""
    more = tuple(sorted(pages - {*GUIDE, *REFERENCE, *BEHIND}))

    def section(names: tuple[str, ...]) -> list[str]:
        return [f"docs/{name}.md" for name in names if name in pages]

    return [
        {"Start": "README.md"},
        {"Guide": section(GUIDE + more)},
        {"Reference": section(REFERENCE)},
        {"Behind it": [*section(BEHIND), "CONTRIBUTING.md", {"Changes": "CHANGELOG.md"}]},
    ]


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


sys.exit(main(Path(sys.argv[1]).resolve()))
