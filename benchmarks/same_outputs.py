"""Whether two states of the code write the same outputs, byte for byte: after a change that should change nothing.

    git worktree add /tmp/before COMMIT
    python -m benchmarks.same_outputs /tmp/before

Prunes the fixture in every format, by each reading and by a saved plan, two GGUF files, a repository of the
stand-in Hub, and tiny models of ten families (for which torch and transformers are needed), with both, and compares
all files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tests import gguf_files
from tests.families import tiny
from tests.families.cases import CASES
from tests.hub.hub_repository import Repository
from tests.hub.hub_server import Hub

ROOT = Path(__file__).parents[1]
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "gpt2", "falcon", "mixtral", "deepseek_v3")
FIXTURE = (
    (),
    ("--format", "transformers", "--drop", "3"),
    ("--format", "zeroed", "--layers", "1,6-7"),
    ("--reading", "joint"),
    ("--reading", "stored", "--protect-last", "2"),
    ("--plan", "plan.json"),
)


def runs(place: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What is pruned: sources in `place`, with the command's options."""
    shutil.copytree(ROOT / "fixtures" / "sotu-5m", place / "fixture")
    for options in FIXTURE:
        yield "fixture", options
    shapes = gguf_files.shapes()
    gguf_files.write_gguf(place / "llama.gguf", gguf_files.tensors(shapes, "Q8_0"))
    gguf_files.write_gguf(
        place / "qwen2.gguf", gguf_files.tensors(gguf_files.shapes(bias=True), "F16"), architecture="qwen2"
    )
    for name in ("llama.gguf", "qwen2.gguf"):
        yield name, ("--layers", "1,3")
        yield name, ("--format", "zeroed")
    yield "org/fixture", ()
    by_family = {case.family: case for case in reversed(CASES)}
    for family in FAMILIES:
        tiny.make(by_family[family]).save_pretrained(place / family)
        yield family, ("--drop", "1")
        yield family, ("--format", "zeroed", "--drop", "1")


def written(code: Path, place: Path, source: str, options: tuple[str, ...], hub: Hub) -> dict[str, str]:
    """The digest of each file that the command of `code` writes; its one line instead if it refuses."""
    out = place / ("out.gguf" if source.endswith(".gguf") else "out")
    environment = {
        **os.environ,
        "PYTHONPATH": str(code),
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(place / "hf-home"),
        "NO_COLOR": "1",
    }
    words = [sys.executable, "-m", "gatenorm_stream", source, "--out", out.name, *options]
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True)
    if done.returncode:
        return {"refused": done.stderr}
    there = [out, *place.glob("out.gatenorm.*")]
    found = sorted(p for top in there for p in (top, *top.rglob("*")) if p.is_file())
    digests = {p.relative_to(place).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}
    for path in there:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return digests


def main() -> None:
    before, different, files = Path(sys.argv[1]).resolve(), 0, 0
    with TemporaryDirectory() as folder, Hub({"org/fixture": Repository(ROOT / "fixtures" / "sotu-5m")}) as hub:
        place = Path(folder)
        plan = [sys.executable, "-m", "gatenorm_stream", "fixtures/sotu-5m", "--dry-run", "--json", "--drop", "4"]
        saved = subprocess.run(plan, cwd=ROOT, capture_output=True, check=True)
        (place / "plan.json").write_bytes(saved.stdout)
        for source, options in runs(place):
            then, now = (written(code, place, source, options, hub) for code in (before, ROOT))
            differing = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
            files += len(now)
            different += len(differing)
            shown = ", ".join(differing) or (
                "both refuse it" if "refused" in now else f"{len(now)} files, the same"
            )
            print(f"{source} {' '.join(options)}: {shown}", flush=True)
    print(f"{files} files compared, {different} differ")
    sys.exit(min(different, 1))


if __name__ == "__main__":
    main()
