"""Directories in which the recipes of docs/deploy.md can be run."""

import re
from pathlib import Path

from tests.deploy.recipes import Block, blocks

FIXTURE = Path(__file__).parents[2] / "fixtures" / "sotu-5m"
HELDOUT = FIXTURE.with_name("heldout.txt")


def pruned(directory: Path, model: Path) -> Path:
    """After the recipe `Prune` on that model. Two sublayers go, so that something is seen; it would be one."""
    (directory / "MODEL").symlink_to(model)
    for block in blocks("Prune"):
        Block(block.language, re.sub(r"--format \S+", r"\g<0> --drop 2", block.code)).run(directory)
    return directory


def whole(directory: Path, model: Path) -> Path:
    """What the recipes call `pruned` and `zeroed` is the model itself."""
    for name in ("pruned", "zeroed"):
        (directory / name).symlink_to(model)
    return directory


def add_texts(directory: Path) -> None:
    """calibration.txt and heldout.txt, without a line in common."""
    texts = HELDOUT.read_text("utf-8").splitlines(keepends=True)
    (directory / "calibration.txt").write_text("".join(texts[:5]), "utf-8")
    (directory / "heldout.txt").write_text("".join(texts[5:10]), "utf-8")


def set_token_scores(directory: Path) -> None:
    """The lines of engines.md to which the recipe for GGUF refers, on the directory's pruned.gguf."""
    (lines,) = [block for block in blocks("llama.cpp", "engines.md") if "tokenizer.ggml.scores" in block.code]
    lines.run(directory)


def run_each_command(block: Block, directory: Path) -> dict[str, str]:
    """What each command of a shell block printed, by the command."""
    return {line: Block("sh", line).run(directory) for line in block.code.splitlines()}
