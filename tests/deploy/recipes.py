"""The recipes of docs/deploy.md, run word for word."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
# Waiting threads sleep. llama.cpp's would otherwise spin: ten times slower where others want the cores too.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive"}


@dataclass(frozen=True)
class Block:
    language: str  # "sh" or "python"
    code: str

    def run(self, directory: Path) -> str:
        """Runs it there, without a terminal, this environment's programs first; its standard output.

        Raises AssertionError, with what it wrote to standard error, if it fails.
        """
        programs = Path(sys.executable).parent
        interpreter = ["bash", "-euo", "pipefail"] if self.language == "sh" else [sys.executable]
        done = subprocess.run(
            [*interpreter, "-c", self.code],
            cwd=directory,
            env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", **ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{self.code}\n{done.stderr}"
        return done.stdout + (done.stderr if self.language == "sh" else "")


def blocks(heading: str, document: str = "deploy.md") -> list[Block]:
    """Those under a heading of one of the documents, in order."""
    text = (DOCS / document).read_text("utf-8")
    (section,) = re.findall(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    return [Block(*found) for found in re.findall(r"```(sh|python)\n(.*?)```", section, re.DOTALL)]
