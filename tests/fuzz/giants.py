"""Files that cost a reader as much memory or time as they can, each given to the installed command.

    python -m tests.fuzz.giants

Each run must end by itself with a message or a plan, in less than 300 MB and one second beyond the command's start:
of processor time, on a core for itself. Cores that are shared are slower, so right after each run Python's own
parser reads a text that takes a tenth of a second otherwise, and the limit grows with what that takes.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from tests.checkpoints import llama_config, llama_shapes, random_tensors, shapes_of, write_checkpoint

COMMAND = str(Path(sys.executable).with_name("gatenorm-stream"))
MAX_RSS = 300 << 20
MAX_SECONDS = 1.0
YARD = "{" + ",".join(f'"{n}":0' for n in range(200_000)) + "}"
YARD_SECONDS = 0.1
"""Of processor time for it, on the core that MAX_SECONDS is said of."""
LINES = 22
CONFIG, INDEX, SHARD = "config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"

Write = Callable[[Path], object]


def shard(*parts: tuple[bytes, int], data: int = 0) -> Write:
    """A safetensors file whose header is each of `parts` so many times, and `data` bytes of nothing."""

    def write(root: Path) -> None:
        with open(root / SHARD, "wb") as file:
            file.write(bytes(8))
            _repeat(file, parts)
            length = file.tell() - 8
            file.truncate(file.tell() + data)
            file.seek(0)
            file.write(struct.pack("<Q", length))

    return write


def one_head(dim: int, hidden: int) -> Write:
    """A model of two layers with one head each, all holes."""
    config = llama_config(
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=dim,
        hidden_size=hidden,
        intermediate_size=1,
        vocab_size=1,
        tie_word_embeddings=True,
    )

    def write(root: Path) -> None:
        entries, end = {}, 0
        for name, shape in shapes_of(config).items():
            start, end = end, end + 2 * math.prod(shape)
            entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
        (root / CONFIG).write_text(json.dumps(config))
        (root / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(entries, SHARD)}))
        shard((json.dumps(entries).encode(), 1), data=end)(root)

    return write


def text(name: str, *parts: tuple[bytes, int]) -> Write:
    def write(root: Path) -> None:
        with open(root / name, "wb") as file:
            _repeat(file, parts)

    return write


def _repeat(file: BinaryIO, parts: tuple[tuple[bytes, int], ...]) -> None:
    """Each part so many times; a # in it is its number. Little by little: this process must stay small, since what
    it starts counts its memory as its own."""
    for part, count in parts:
        for start in range(0, count, 10_000):
            several = range(start, min(start + 10_000, count))
            file.write(
                b"".join(part.replace(b"#", b"%d" % n) for n in several) if b"#" in part else part * len(several)
            )


def arrays(part: bytes, count: int) -> Write:
    return shard((b'{"a":[', 1), (part, count), (b"0]}", 1))


def sparse(root: Path) -> None:
    """A terabyte that takes no room."""
    header = json.dumps({"a": {"dtype": "U8", "shape": [1 << 40], "data_offsets": [0, 1 << 40]}}).encode()
    shard((header, 1), data=1 << 40)(root)


EMOJI = "\N{GRINNING FACE}".encode()
PLAN = b'{"schema":1,"dropped":[1],"layers":['
GIANTS: dict[str, Write] = {
    "header: 50,000 tensors": shard(
        (b"{", 1), (b'"#":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},', 50_000), (b'"":{}}', 1)
    ),
    "header: a tensor of a terabyte": sparse,
    "header: a string of 23 MB": shard((b'{"__metadata__":{"a":"', 1), (b"x", 22_900_000), (b'"}}', 1)),
    "header: a wide string of 23 MB": shard(
        (b'{"__metadata__":{"a":"', 1), (b"x", 22_900_000), (EMOJI + b'"}}', 1)
    ),
    "header: spaces": shard((b" ", 23_900_000), (b"{}", 1)),
    "header: 99 MB": shard((b'{"a":"', 1), (b"x", 99_000_000), (b'"}', 1)),
    "header: keys": shard((b"{", 1), (b'"#":1,', 490_000), (b'"":1}', 1)),
    "header: depth": shard((b"[", 23_000_000)),
    **{f"header: {p.decode()} without end": arrays(p, 23_000_000 // len(p)) for p in (b"[],", b"{},", b'{"":0},')},
    **{
        f"header: {p.decode()} many times": arrays(p, 490_000 // n)
        for p, n in ((b"[],", 2), (b"{},", 2), (b'{"":0},', 2), (b'"ab",', 1), (b"1e5,", 1), (b"12345678,", 1))
    },
    "index: 490,000 tensors in one shard": text(
        INDEX, (b'{"weight_map":{', 1), (b'"#":"%s",' % SHARD.encode(), 490_000), (b'"":"x.safetensors"}}', 1)
    ),
    "index: 490,000 shards": text(
        INDEX, (b'{"weight_map":{', 1), (b'"#":"#.safetensors",', 490_000), (b'"":"x.safetensors"}}', 1)
    ),
    "index: depth": text(INDEX, (b'{"metadata":', 1), (b"[", 1_000_000)),
    "index: 99 MB": text(INDEX, (b" ", 99_000_000), (b"{}", 1)),
    "config: 490,000 fields": text(CONFIG, (b"{", 1), (b'"#":0,', 490_000), (b'"":0}', 1)),
    "config: 490,000 values": text(CONFIG, (b'{"a":[', 1), (b"0,", 490_000), (b"0]}", 1)),
    "config: a thousand million layers": lambda root: (root / CONFIG).write_text(
        json.dumps(llama_config(num_hidden_layers=10**9))
    ),
    "a head of 4 GB": one_head(16_384, 131_072),
    "a head of 0.5 GB": one_head(2048, 131_072),
    "a head as large as may be": one_head(128, 32_768),
    "plan: 90,000 layers": text(
        "plan.json", (PLAN, 1), (b'{"layer":#,"score":1,"heads":[]},', 90_000), (b"{}]}", 1)
    ),
    "plan: 490,000 heads": text(
        "plan.json", (PLAN + b'{"layer":0,"score":1,"heads":[', 1), (b"1,", 490_000), (b"1]}]}", 1)
    ),
    "plan: 99 MB": text("plan.json", (b" ", 99_000_000), (b"{}", 1)),
    "plan: a device": lambda root: (root / "plan.json").symlink_to("/dev/zero"),
    "plan: a pipe": lambda root: os.mkfifo(root / "plan.json"),
}
CARDS: dict[str, Write] = {
    "card: 99 MB": text("README.md", (b"---\ntags: [", 1), (b"a, ", 33_000_000), (b"]\n---\n", 1)),
    "card: brackets": text("README.md", (b"---\ntags: ", 1), (b"[", 60_000), (b"\n---\n", 1)),
    "card: spaces": text("README.md", (b"---\nlicense:", 1), (b" ", 60_000), (b"#\n---\n", 1)),
}
"""With these, the whole model is pruned."""
OUTPUTS: dict[str, Write] = {
    "record: 99 MB": text("gatenorm.json", (b" ", 99_000_000), (b"{}", 1)),
    "record: 90,000 layers": text(
        "gatenorm.json", (PLAN, 1), (b'{"layer":#,"score":1,"heads":[]},', 90_000), (b"{}]}", 1)
    ),
    "record: 490,000 files": text("gatenorm.json", (b'{"files":{', 1), (b'"#":1,', 490_000), (b'"":1}}', 1)),
    "record: 10,000 files, digest and all": lambda root: recorded(root, 10_000),
    "record: 160,000 files, digest and all": lambda root: recorded(root, 160_000),
    "record: depth": text("gatenorm.json", (b"[", 1_000_000)),
    "output: 50,000 tensors": GIANTS["header: 50,000 tensors"],
    "output: a terabyte of holes": lambda root: os.truncate(root / SHARD, 1 << 40),
    "output: config of 490,000 fields": GIANTS["config: 490,000 fields"],
    "output: a shard that is a device": lambda root: _instead(root / SHARD).symlink_to("/dev/zero"),
    "output: a shard that is a pipe": lambda root: os.mkfifo(_instead(root / SHARD)),
}
"""Of an output, which is then verified, explained, and compared with its source."""


def recorded(root: Path, files: int) -> None:
    """A record as `render_record` writes it, of the output's own plan. In another process: this must stay small."""
    program = f"""
from pathlib import Path
from gatenorm_stream.planning.plan import read_plan
from gatenorm_stream.writing.record import FileDigest, render_record
record = Path({str(root)!r}, "gatenorm.json")
record.write_text(render_record(read_plan(record), {{str(n): FileDigest(1, "0" * 64) for n in range({files})}}))
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def _instead(path: Path) -> Path:
    path.unlink()
    return path


def measured(command: list[str]) -> tuple[int, str, float, int]:
    """Exit code, standard error, seconds of processor time, bytes of peak memory."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        return process.returncode, errors.read(), usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10


def slowness() -> float:
    """How many times slower than that core this one is now; a faster one counts as 1."""
    begun = time.process_time()
    json.loads(YARD)
    return max(1.0, (time.process_time() - begun) / YARD_SECONDS)


def findings() -> Iterator[str]:
    """What each giant did that it must not; prints what it cost."""
    with tempfile.TemporaryDirectory(prefix="gatenorm-giants-") as folder:
        start = min(next(_costs(Path(folder) / f"plain{n}", lambda root: None))[3] for n in range(3))
        each = {**GIANTS, **CARDS, **OUTPUTS}.items()
        for number, (name, write) in enumerate(each):
            for what, code, errors, seconds, rss in _costs(Path(folder) / str(number), write):
                seconds, slow = max(0.0, seconds - start), slowness()
                cost = f"{seconds:5.2f} s / {slow:3.1f}  {rss / (1 << 20):4.0f} MiB"
                print(f"{name:<42} {what:<8} exit {code}  {cost}  {errors[:90].strip()}", flush=True)
                if code not in (0, 1) or "Traceback" in errors or "unexpected" in errors:
                    yield f"{name}, {what}: exit code {code}, {errors[-300:]}"
                if errors.count("\n") > (LINES if what == "verify" else 1):
                    yield f"{name}, {what}: {errors.count(chr(10))} lines"
                if rss > MAX_RSS:
                    yield f"{name}, {what}: {rss >> 20} MiB"
                if seconds > MAX_SECONDS * slow:
                    yield f"{name}, {what}: {seconds:.2f} s on a core that is {slow:.1f} times slower"


def _costs(root: Path, write: Write) -> Iterator[tuple[str, int, str, float, int]]:
    """Of each command that the giant is given to: its name, and what `measured` says."""
    write_checkpoint(root, random_tensors(llama_shapes()), llama_config())
    out = root.with_name(root.name + ".out")
    pruned = ["--layers", "1", "--out", str(out)]
    if write in OUTPUTS.values():
        subprocess.run([COMMAND, str(root), *pruned, "--quiet"], check=True)
        write(out)
        commands = {"verify": ["verify", str(out)], "explain": ["explain", str(out)]}
        commands["compare"] = ["compare", str(root), str(out)]
    else:
        write(root)
        plan = ["--plan", str(root / "plan.json")] if os.path.lexists(root / "plan.json") else ["--layers", "1"]
        prune = pruned if write in CARDS.values() else ["--dry-run", *plan]
        commands = {"prune": [str(root), *prune]}
        if write not in CARDS.values() and not os.path.lexists(root / "plan.json"):
            commands["plot"] = ["score", str(root), "--plot", str(out.with_suffix(".svg"))]
    try:
        for what, arguments in commands.items():
            yield what, *measured(["timeout", "-k", "1", "60", COMMAND, *arguments])
    finally:
        for folder in (root, out):
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    found = list(findings())
    print(
        "\n".join(f"FINDING {line}" for line in found)
        or f"{len(GIANTS) + len(CARDS) + len(OUTPUTS)} giants, no finding"
    )
    sys.exit(bool(found))
