"""Whole prunes: hostile cards and companions, what lies where the output goes, and what changes meanwhile.

After each: what is outside is as it was, no secret is in the output, an output that came to be verifies.
"""

from __future__ import annotations

import json
import os
import random
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gatenorm_stream
from gatenorm_stream.errors import GateNormError
from gatenorm_stream.planning.plan import Plan
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.fuzz import cards
from tests.fuzz.cut_off import CutError, cut_after
from tests.fuzz.mutate import mutate
from tests.fuzz.target import Target, number, put_back, remove, tree
from tests.fuzz.watch import FindingError, Watch

SECRET = b"a secret of the user"
FOREIGN = "evil/repo--own.Evil"
ABSOLUTE = "/tmp/evil/own.Evil"
SECRETS = (
    *(".env", ".netrc", "id_rsa", "server.pem", "api_key.txt", "hf_token", "credentials.json", ".git/config"),
    *("pytorch_model.bin", "x.pkl", "lib.so", "hooks/pre-commit", "training_args.bin", "events.out.tfevents.1"),
    *("wandb/run.log", "Id_RSA", "a/.ssh/key", "secrets.yaml", "custom_generate/generate.py", "trainer_state.json"),
)
CODED = ("tokenizer_config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json")
FOLDERS = ("1_Dense", "vocab_x", "rwkv_vocab", "tokenizer.json.d", "additional_chat_templates")
JOURNAL, RECORD = ".gatenorm-journal", "gatenorm.json"


class Prunes:
    """In a folder: `source`, `made` for what is written, and `mine`, which is the user's."""

    def __init__(self, folder: Path, watch: Watch) -> None:
        self.watch = watch
        self._root = folder / "prunes"
        self._mine, self._made = self._root / "mine", self._root / "made"
        (self._mine / "folder").mkdir(parents=True)
        (self._mine / ".ssh").mkdir()
        self._made.mkdir()
        self._out = self._made / "out"
        self._partial = self._made / "out.partial"
        self._source = write_checkpoint(self._root / "source", random_tensors(llama_shapes()), llama_config())
        (self._source / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
        (self._source / "chat_templates").mkdir()
        (self._source / "chat_templates" / "tools.jinja").write_text("travels")
        self._pristine = tree(self._source)
        (self._mine / "thesis").write_bytes(b"mine")
        for name, content in self._pristine.items():
            if "/" not in name and content != b"folder":
                (self._mine / ".ssh" / name).write_bytes(content + SECRET if name.endswith(".jinja") else SECRET)
        (self._mine / "templates").mkdir()
        (self._mine / "templates" / "tools.jinja").write_bytes(SECRET)
        self._kept = tree(self._mine)
        self._plan = gatenorm_stream.plan(self._source, layers=[1, 2])
        self._other = gatenorm_stream.plan(self._source, layers=[1])
        self._prune(self._plan)
        self._whole = tree(self._out)
        self._prune(self._other, force=True)
        self._clear()
        self.watch.permit(self._made, self._source)
        self.watch.case(partial(self._prune, self._plan))
        self._events = self.watch.events
        self._clear()

    def targets(self) -> tuple[Target, ...]:
        return (
            Target("prunes", 0.001, self.prune, cards.card),
            Target("partials", 0.001, self.partial, number),
            Target("replacements", 0.001, self.replacement, number),
            Target("races", 0.001, self.race, number),
        )

    def prune(self, data: bytes) -> None:
        """With the case as the card, and companions that follow from it."""
        rng = random.Random(zlib.crc32(data))
        (self._source / "README.md").write_bytes(data)
        self._accompany(rng)
        plan = self._plan if rng.randrange(3) else self._other
        try:
            self._finish(partial(self._prune, plan))
            for name, content in tree(self._made).items():
                if name.endswith(".json") and not name.endswith(RECORD):
                    check_code(content)
        finally:
            put_back(self._source, self._pristine)
            self._clear()

    def partial(self, data: bytes) -> None:
        """A run that was cut off anywhere, whose `.partial` someone has changed; then it goes on."""
        rng = random.Random(data)
        self._cut_off(rng.randrange(1, 40))
        for _ in range(rng.choice((0, 1, 1, 2))):
            _plant(self._partial, self._mine, rng)
        try:
            error = self._finish(partial(self._prune, self._plan, restart=not rng.randrange(4)))
            if error is None and tree(self._out) != self._whole:
                raise FindingError("a run that was continued has another result")
        finally:
            self._clear()

    def replacement(self, data: bytes) -> None:
        """--force over an output in which there is more, or something else, than its record lists."""
        rng = random.Random(data)
        put_back(self._out, self._whole)
        added = [_add(self._out, self._mine, rng) for _ in range(rng.choice((0, 1, 1, 2)))]
        if not rng.randrange(4):
            record = self._out / RECORD
            record.write_bytes(mutate(rng, record.read_bytes(), list(self._whole.values())))
        before = tree(self._out)
        try:
            error = self._finish(partial(self._prune, self._other, force=True), verify=False)
            if error and tree(self._out) != before:
                raise FindingError(f"refused, and yet not as it was: {error}")
            after = tree(self._made)
            for name in added:
                if not any(c == before[name] and n.endswith(name) for n, c in after.items()):
                    raise FindingError(f"{name} is gone, which was not on record")
        finally:
            self._clear()

    def race(self, data: bytes) -> None:
        """Something changes hands at any moment of a run."""
        rng = random.Random(data)
        force = not rng.randrange(2)
        if force:
            put_back(self._out, self._whole)
        self.watch.interrupt(rng.randrange(self._events * 5 // 4), self._interruption(rng))
        try:
            self._finish(partial(self._prune, self._other, force=force), verify=False)
            marked = [c for c in tree(self._made).values() if c == b"came in meanwhile"]
            if self.watch.interrupted == "added" and not marked:
                raise FindingError("a file that came in meanwhile is gone")
        finally:
            self.watch.interrupt(-1, lambda: "")
            put_back(self._source, self._pristine)
            self._clear()

    def _interruption(self, rng: random.Random) -> Callable[[], str]:
        """What happens; it says whether a file was added."""
        source = self._source / rng.choice([n for n in self._pristine if "/" not in n and "." in n])
        name = rng.choice(("x", ".hidden", "added/y", "config.json~"))
        kind = rng.randrange(6)

        def act() -> str:
            if kind == 0:  # a file of the source becomes a link to a secret
                source.unlink()
                source.symlink_to(self._mine / ".ssh" / source.name)
            elif kind == 1 and self._partial.is_dir():
                _plant(self._partial, self._mine, rng)
            elif kind == 2 and self._partial.is_dir():
                self._partial.rename(self._made / "moved")
                self._partial.symlink_to(self._mine / "folder")
            elif kind == 3 and self._out.is_dir():
                path = self._out / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(b"came in meanwhile")
                return "added"
            elif kind == 4 and not self._out.exists():
                self._out.symlink_to(self._mine / "folder")
            elif kind == 5:  # a folder of the source becomes a link to one of the user's
                remove(self._source / "chat_templates")
                (self._source / "chat_templates").symlink_to(self._mine / "templates")
            return ""

        return act

    def _finish(self, act: Callable[[], object], *, verify: bool = True) -> GateNormError | None:
        self.watch.permit(self._made, self._source, self._mine)
        error = self.watch.case(act)
        if tree(self._mine) != self._kept:
            raise FindingError("what is outside was changed")
        if error is None and verify:
            self.watch.case(self._verify)
        for name, content in tree(self._out).items():
            if SECRET in content:
                raise FindingError(f"{name} holds a secret")
        return error

    def _prune(self, plan: Plan, **options: Any) -> None:
        gatenorm_stream.prune(plan, self._out, threads=1, **options)

    def _verify(self) -> None:
        try:
            gatenorm_stream.verify(self._out, against=self._source)
        except GateNormError as error:
            raise FindingError(f"its own output does not verify: {error}") from error

    def _cut_off(self, calls: int) -> None:
        """After so many reports of progress; a finished output is then called `.partial`."""
        try:
            self._prune(self._plan, progress=cut_after(calls))
        except CutError:
            return
        self._out.rename(self._partial)

    def _accompany(self, rng: random.Random) -> None:
        """Files beside the weights, or in the folder of a module: secrets, and JSON that names code of others."""
        beside = self._source
        if not rng.randrange(3):
            beside /= rng.choice(FOLDERS)
            beside.mkdir(exist_ok=True)
            (self._source / "modules.json").write_text(json.dumps([{"path": beside.name, "type": "x.Y"}]))
        for name in rng.sample(SECRETS, rng.randrange(4)):
            path = self._source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(SECRET)
        for name in rng.sample(CODED, rng.randrange(3)):
            value = _coded(rng, 3)
            text = json.dumps(value if isinstance(value, dict) and rng.randrange(9) else {"a": value}).encode()
            (beside / name).write_bytes(mutate(rng, text, [text]) if not rng.randrange(3) else text)

    def _clear(self) -> None:
        for path in self._made.iterdir():
            remove(path)


def check_code(text: bytes) -> None:
    """Raises FindingError if this JSON still names code of another repository."""
    try:
        value = json.loads(text)
    except ValueError:
        return
    for key, inner in _entries(value):
        if key in ("auto_map", "custom_pipelines") and {FOREIGN, ABSOLUTE} & set(map(str, _values(inner))):
            raise FindingError(f"{key} is left: {inner!r}")
        if key in ("custom_generate", "trust_remote_code") and (
            inner is True or (inner and isinstance(inner, str))
        ):
            raise FindingError(f"{key} is left: {inner!r}")


def _values(value: Any) -> list[Any]:
    """What is no list or mapping in it; of a mapping, its names are none."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [value] if inner is None else [leaf for each in inner for leaf in _values(each)]


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _entries(inner)


def _coded(rng: random.Random, depth: int) -> Any:
    if depth == 0 or not rng.randrange(3):
        return rng.choice([FOREIGN, [FOREIGN, None], {"AutoTokenizer": ABSOLUTE}, "own.A", None, True, 3])
    keys = ("auto_map", "custom_pipelines", "a", "image_processor", "tokenizer_class")
    return {rng.choice(keys): _coded(rng, depth - 1) for _ in range(rng.randrange(1, 4))}


def _plant(partial_: Path, mine: Path, rng: random.Random) -> None:
    """In a `.partial`, something through which a file elsewhere could be written to, or a lie."""
    names = [p.relative_to(partial_).as_posix() for p in partial_.rglob("*")] or [JOURNAL]
    name = rng.choice([*names, JOURNAL, RECORD, ".gatenorm-spool", "chat_templates", "x", ".hidden"])
    path = partial_ / name
    if not path.parent.is_dir():
        return
    if rng.randrange(3) == 0 and (partial_ / JOURNAL).is_file() and not (partial_ / JOURNAL).is_symlink():
        name, path = JOURNAL, partial_ / JOURNAL
        content = mutate(rng, path.read_bytes(), [path.read_bytes()])
        path.unlink()
        path.write_bytes(content)
        return
    content = path.read_bytes() if path.is_file() else b"x"
    remove(path)
    match rng.randrange(8):
        case 0:
            path.symlink_to(mine / rng.choice(["thesis", "folder", "new", ".ssh/config.json"]))
        case 1:
            os.link(mine / "thesis", path)
        case 2:
            os.mkfifo(path)
        case 3:
            path.mkdir()
        case 4:
            path.symlink_to(rng.choice(["/dev/zero", path.name, ".."]))
        case 5:
            path.write_bytes(mutate(rng, content, [content]))
        case 6:
            path.write_bytes(content[: rng.randrange(len(content) + 1)])
        case 7:
            os.makedirs(path / "/".join("d" * rng.choice([1, 31, 40])))


def _add(out: Path, mine: Path, rng: random.Random) -> str:
    """To an output, what its record does not list: its name."""
    name = rng.choice(
        ["notes.txt", ".hidden", ".git/config", "sub/deep/x", "config.json", "x\x1b[2J", "tokenizer.json"]
    )
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith("json"):
        path.write_bytes(path.read_bytes() + b" mine")
        return name
    remove(path)
    match rng.randrange(4):
        case 0:
            path.symlink_to(mine / rng.choice(["thesis", "folder"]))
        case 1:
            path.mkdir()
        case 2:
            os.mkfifo(path)
        case _:
            path.write_bytes(b"mine")
    return name
