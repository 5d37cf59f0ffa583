"""docs/gguf.md and measure.md: a file that llama-quantize made is pruned, and llama.cpp's own programs run it."""

import re
import shutil
from pathlib import Path

import pytest
from gguf import GGUFReader

from tests.deploy import places
from tests.deploy.recipes import Block, blocks

PERPLEXITY = "llama-perplexity -m {} -f heldout.txt -c 256 -b 256"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sotu) -> Path:
    folder = places.whole(tmp_path_factory.mktemp("gguf"), sotu)
    places.add_texts(folder)
    convert, quantise, *_ = blocks("GGUF")
    for block in (convert, quantise):
        block.run(folder)
    shutil.move(folder / "pruned-Q4_K_M.gguf", folder / "model-Q4_K_M.gguf")
    return folder


def perplexities(folder: Path, name: str) -> list[str]:
    return running(Block("sh", PERPLEXITY.format(name)).run(folder))


def running(said: str) -> list[str]:
    """Of the first 1, 2, ... windows, as llama-perplexity prints them."""
    return re.findall(r"\[\d+\]([\d.]+),", said)


def test_the_recipe(folder):
    prune, *_ = blocks("GGUF files", "gguf.md")
    (folder / "pruned.gguf").unlink()
    assert "each the same as in model-Q4_K_M.gguf" in prune.run(folder)
    Block("sh", "gatenorm-stream model-Q4_K_M.gguf --out zeroed.gguf --format zeroed").run(folder)
    removed, zeroed = (perplexities(folder, name) for name in ("pruned.gguf", "zeroed.gguf"))
    assert len(removed) > 20
    assert removed[:20] == zeroed[:20]
    assert removed[:20] != perplexities(folder, "model-Q4_K_M.gguf")[:20]
    (measure,) = blocks("In llama.cpp", "measure.md")
    as_shown = [float(each) for each in running(measure.run(folder))[:20]]
    assert as_shown == pytest.approx([float(each) for each in removed[:20]], rel=1e-3)
    kinds = [
        {t.name: t.tensor_type.name for t in GGUFReader(folder / name).tensors if "blk.8." in t.name}
        for name in ("pruned.gguf", "model-Q4_K_M.gguf")
    ]
    assert kinds[0] == kinds[1]
    assert "Q4_K" in kinds[0].values()


def test_an_importance_matrix_stays_on_record(folder):
    """llama-quantize writes down which matrix it used."""
    commands = [
        "llama-imatrix -m pruned-f16.gguf -f calibration.txt -o m.gguf -c 256 -b 256 --chunks 4",
        "llama-quantize --imatrix m.gguf pruned-f16.gguf weighted.gguf IQ4_XS",
        "gatenorm-stream weighted.gguf --out weighted-pruned.gguf",
        "gatenorm-stream verify weighted-pruned.gguf --against weighted.gguf",
    ]
    blocks("GGUF")[0].run(folder)
    shutil.move(folder / "pruned.gguf", folder / "pruned-f16.gguf")
    for command in commands:
        Block("sh", command).run(folder)
    before, after = (GGUFReader(folder / f"{name}.gguf").fields for name in ("weighted", "weighted-pruned"))
    kept = [key for key in before if key.startswith(("quantize.", "tokenizer.", "general.")) and "arch" not in key]
    assert "quantize.imatrix.file" in kept
    kept.remove("tokenizer.ggml.scores")  # the converter lost the merge order, and the command sets it
    assert [before[key].contents() for key in kept] == [after[key].contents() for key in kept]
