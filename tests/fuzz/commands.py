"""The command itself, in this process: odd arguments, over sources, outputs and pictures that someone has spoilt.

What it prints is lines of what is seen, never a traceback nor an error that nobody expected.
"""

from __future__ import annotations

import io
import os
import random
from contextlib import redirect_stderr, redirect_stdout
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import typer.main
from huggingface_hub import constants

import gatenorm_stream
from gatenorm_stream.cli.fold import folded
from gatenorm_stream.cli.main import app
from gatenorm_stream.cli.say import say
from gatenorm_stream.cli.usage import usage_line
from tests import gguf_files
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.fuzz import directories, outputs
from tests.fuzz.mutate import mutate
from tests.fuzz.target import Target, number, put_back, remove, tree
from tests.fuzz.watch import FindingError, Watch

ODD = (
    *(
        "",
        " ",
        "-",
        "--",
        "x",
        "\udcff",
        "a\x1b[2Jb",
        "[/foo].txt",
        "\u202e",
        "x" * 300,
        "a\nb",
        "%s",
        "{}",
        "~nobody",
    ),
    *(
        "0",
        "-1",
        "1",
        "3",
        "2.5",
        "nan",
        "-inf",
        "1e309",
        "9" * 5000,
        "50%",
        "1/0",
        "1/3",
        "0x10",
        "٣",
        "1_0",
        "+1",
    ),
    *(
        "1-3",
        "3-1",
        "1,,2",
        "0-999999",
        "2,2",
        "per-head",
        "joint",
        "stored",
        "auto",
        "zeroed",
        "llama.cpp",
        "vllm",
    ),
    *("org/name", "hf://org/name", "https://huggingface.co/org/name", "org/name@a:b.gguf", "tcp://x", "tls://"),
)
VALUED = (
    *("--drop", "--share", "--layers", "--protect-first", "--protect-last", "--reading", "--threads", "--format"),
    *(
        "--engine",
        "--also",
        "--against",
        "--other-reading",
        "--revision",
        "--connections",
        "--dask",
        "--plot",
        "--plan",
    ),
)
FLAGS = ("--json", "--quiet", "--force", "--dry-run", "--dask-insecure", "--restart", "--help", "-h", "--version")
COMMANDS = ("score", "compare", "verify", "explain", "prune", "families", "scroe")
PLOTS = (
    "new.svg",
    "new.html",
    "new.SVG",
    "there.svg",
    "link.svg",
    "pipe.svg",
    "folder.svg",
    "device.html",
    "no/x.svg",
    "x",
)


class Commands:
    def __init__(self, folder: Path, watch: Watch) -> None:
        self.watch = watch
        root = self._root = folder / "commands"
        self._source = write_checkpoint(root / "source", random_tensors(llama_shapes()), llama_config())
        self._out, self._plots, self._mine = root / "out", root / "plots", root / "mine"
        for path in (root / "ggufs", self._plots, self._mine):
            path.mkdir()
        content = gguf_files.tensors(gguf_files.shapes(2), "Q4_0")
        self._gguf = gguf_files.write_gguf(root / "ggufs" / "model.gguf", content)
        gatenorm_stream.prune(gatenorm_stream.plan(self._source, layers=[1]), self._out)
        gatenorm_stream.prune(gatenorm_stream.plan(self._gguf, layers=[1]), root / "ggufs" / "out.gguf")
        (self._mine / "thesis").write_bytes(b"mine")
        # typer builds all subcommands anew at each start, which takes most of a case
        patch.object(typer.main, "get_command", cache(typer.main.get_command)).start()
        self._pristine = {each: tree(each) for each in (self._source, self._out, root / "ggufs")}
        self._models = [
            *map(str, (self._source, self._out, self._gguf, root / "ggufs" / "out.gguf", root / "ggufs")),
            *(str(root / "nowhere"), str(self._source / "config.json"), str(self._out / "gatenorm.json")),
        ]
        self._lay_plots()
        os.environ["COLUMNS"] = "80"
        source, out = self._models[:2]
        for arguments in (["compare", source, out], ["score", source, "--json"], ["explain", out], ["families"]):
            self._call(arguments)
        self._call(["compare", source, self._models[2]])
        self._call(["verify", out, "--against", source])
        self._call(["score", source, "--plot", str(self._plots / "warm.svg")])
        self._call([source, "--nothing"])
        self._call([source, "--help"])

    def targets(self) -> tuple[Target, ...]:
        return (
            Target("commands", 0.001, self.command, number),
            Target("plots", 0.0005, self.plot, number),
            Target("compares", 0.001, self.compare, number),
        )

    def command(self, data: bytes) -> None:
        rng = random.Random(data)
        arguments = [rng.choice(COMMANDS)] if rng.randrange(6) else []
        arguments += [self._value(rng) for _ in range(rng.choice((0, 1, 1, 1, 2)))]
        for _ in range(rng.randrange(4)):
            arguments += [rng.choice(FLAGS)] if rng.randrange(2) else [rng.choice(VALUED), self._value(rng)]
        if arguments[:1] == ["families"]:
            arguments = arguments[:2]
        self._judge(rng, arguments)

    def plot(self, data: bytes) -> None:
        """Over every kind of thing that can have the picture's name."""
        rng = random.Random(data)
        self._lay_plots()
        before = tree(self._plots)
        name = rng.choice(PLOTS)
        force = ["--force"] * rng.randrange(2)
        plot = str(self._plots / name)
        self._judge(rng, ["score", rng.choice(self._models), "--plot", plot, *force, *rng.choice(([], ["--json"]))])
        after = tree(self._plots)
        for each, content in before.items():
            if after.get(each) != content and (each, force) != ("there.svg", ["--force"]):
                raise FindingError(f"{each} was changed")

    def compare(self, data: bytes) -> None:
        rng = random.Random(data)
        command = rng.choice(("compare", "compare", "explain", "verify"))
        models = [rng.choice(self._models[:4]) for _ in range(2 if command == "compare" else 1)]
        self._judge(rng, [command, *models, *rng.choice(([], ["--json"]))], spoil=True)

    def _value(self, rng: random.Random) -> str:
        value = rng.choice(self._models if rng.randrange(2) else ODD)
        if rng.randrange(6) == 0:
            folder, slash, name = value.rpartition("/")
            mutated = mutate(rng, os.fsencode(name), [b"3,7-9", b"0.25"])
            value = folder + slash + os.fsdecode(mutated.replace(b"\0", b"").replace(b"/", b""))
        return value if "plots" not in value else ""

    def _judge(self, rng: random.Random, arguments: list[str], *, spoil: bool = False) -> None:
        spoilt = self._spoil(rng) if spoil or rng.randrange(2) else None
        self.watch.permit(self._root, self._root.parent / "hubs" / "cache", Path.cwd())
        kept = tree(self._mine)
        said: list[tuple[int, str, str]] = []
        try:
            with patch.object(constants, "HF_HUB_OFFLINE", True):
                self.watch.case(partial(self._call, arguments, said))
            code, out, err = said[-1]
            if code not in (0, 1, 2):
                raise FindingError(f"{arguments!r}: exit code {code}")
            if "unexpected " in err or "Traceback" in err:
                raise FindingError(f"{arguments!r}: {err}")
            if not all(line.isprintable() for line in (out + err).split("\n")):
                raise FindingError(f"{arguments!r}: prints what is not seen")
            if code and not (out or err):
                raise FindingError(f"{arguments!r}: exit code {code} and no word")
            if tree(self._mine) != kept:
                raise FindingError(f"{arguments!r}: what is outside was changed")
        finally:
            if spoilt:
                put_back(spoilt, self._pristine[spoilt])

    def _spoil(self, rng: random.Random) -> Path:
        match rng.randrange(5):
            case 0:
                directories.DAMAGES[rng.choice(sorted(directories.DAMAGES))](self._source, rng)
                return self._source
            case 1:
                path = self._source / rng.choice(["config.json", directories.INDEX, *directories.SHARDS])
                content = path.read_bytes()
                path.write_bytes(mutate(rng, content, [content]))
                return self._source
            case 2:
                outputs.spoil(self._out, rng, [*self._pristine[self._out].values()])
                return self._out
            case 3:
                outputs.lay_waste(self._out, rng)
                return self._out
            case _:
                path = self._gguf.parent / rng.choice([*self._pristine[self._gguf.parent]])
                content = path.read_bytes()
                path.write_bytes(mutate(rng, content[: rng.choice((300, 10**9))], [content]))
                return self._gguf.parent

    def _call(self, arguments: list[str], said: list[tuple[int, str, str]] | None = None) -> None:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = app(arguments, standalone_mode=False) or 0
            except Exception as error:
                if not hasattr(error, "format_message"):
                    raise
                say(folded(usage_line(error), err), err=True)
                code = 2
        if said is not None:
            said.append((code, out.getvalue(), err.getvalue()))

    def _lay_plots(self) -> None:
        remove(self._plots)
        self._plots.mkdir()
        (self._plots / "there.svg").write_bytes(b"mine")
        (self._plots / "link.svg").symlink_to(self._mine / "thesis")
        (self._plots / "folder.svg").mkdir()
        os.mkfifo(self._plots / "pipe.svg")
        (self._plots / "device.html").symlink_to("/dev/zero")
