"""What is fuzzed: each target takes a case's bytes or a random number, and acts on it under watch."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

import gatenorm_stream
from gatenorm_stream.checkpoint.gguf_header import IncompleteError
from gatenorm_stream.checkpoint.gguf_header import parse_header as parse_gguf_header
from gatenorm_stream.checkpoint.safetensors import open_checkpoint
from gatenorm_stream.checkpoint.safetensors_header import header_range, parse_header
from gatenorm_stream.cli.explain import explain
from gatenorm_stream.errors import GateNormError, HeaderError
from gatenorm_stream.families.model import read_model
from gatenorm_stream.families.open import open_model
from gatenorm_stream.formats.choice import choose_format
from gatenorm_stream.names import CARD, RECORD
from gatenorm_stream.planning.decide import Wanted, decide_by_scores
from gatenorm_stream.planning.lay_out import lay_out
from gatenorm_stream.planning.plan import check_plan_fits, read_plan
from gatenorm_stream.report.card_metadata import front_matter, source_card
from gatenorm_stream.report.comparison_table import comparison_json, comparison_table, verdict
from gatenorm_stream.report.model_card import model_card
from gatenorm_stream.report.picture import score_picture
from gatenorm_stream.report.score_table import score_table
from gatenorm_stream.report.summary import file_lines, model_line, plan_lines, size_table
from gatenorm_stream.report.svg import html, svg
from gatenorm_stream.scoring.comparison import compare
from gatenorm_stream.scoring.score import scored
from gatenorm_stream.scoring.selection import Choice
from gatenorm_stream.sources.local import LocalSource
from gatenorm_stream.sources.open import open_source
from tests import gguf_files
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.fuzz import cards, configs, directories, headers, indexes, outputs, saved_plans, scores
from tests.fuzz.commands import Commands
from tests.fuzz.costs import Costs
from tests.fuzz.hubs import Hubs
from tests.fuzz.mutate import mutate
from tests.fuzz.passes import Passes
from tests.fuzz.prunes import Prunes
from tests.fuzz.pushes import Pushes
from tests.fuzz.target import Target, number
from tests.fuzz.texts import Texts
from tests.fuzz.watch import FindingError, Watch

FIXTURE = Path(__file__).parents[2] / "fixtures" / "sotu-5m"
STRICTER = {
    "a key stands twice": "a key stands twice",
    "more than 500000 values": "more than 500,000 values",
    "and at most 24000000 are read": "more than 24 MB",
    "at most 24000000 are allowed": "more than 24 MB",
    "nested too deeply": "nested deeper than 100",
    "half of a surrogate pair": "half of a surrogate pair",
    "digits": "an integer of more than 40 digits",
}
"""Why a file that the safetensors package takes may be refused: part of our message, and the reason's name."""


class Fuzzing:
    """The targets, and what was seen of them, in a folder that holds a small checkpoint and its output."""

    def __init__(self, folder: Path, watch: Watch, seed: int) -> None:
        self.watch = watch
        self.stricter: dict[str, int] = {}
        self._folder = folder
        self._rng = random.Random(seed)
        self._source = write_checkpoint(folder / "source", random_tensors(llama_shapes()), llama_config())
        (self._source / "modeling_evil.py").write_text("raise SystemExit('code of the checkpoint ran')\n")
        (folder / "plans").mkdir()
        (folder / "outside" / ".kept").mkdir(parents=True)
        for path in self._source.iterdir():
            shutil.copy(path, folder / "outside" / path.name)
            shutil.copy(path, folder / "outside" / ".kept" / path.name)
        (folder / "gguf").mkdir()
        content = gguf_files.tensors(gguf_files.shapes(2), "Q4_0")
        self._gguf = gguf_files.write_gguf(folder / "gguf" / "model.gguf", content)
        self._decide_gguf()
        self._plan = folder / "plans" / "plan.json"
        self._out = folder / "out"
        plan = gatenorm_stream.plan(self._source, layers=[1, 2])
        gatenorm_stream.prune(plan, self._out)
        gatenorm_stream.verify(self._out, against=self._source)
        self._saved = plan
        self._explain()
        _show_scores(random.Random(0))
        self._decide()  # imports what is imported late
        others = (Texts, Costs, Prunes, Hubs, Pushes, Passes, Commands)
        self._others = [each(folder, watch) for each in others]
        self._pristine = {
            root: {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
            for root in (self._source, self._out)
        }

    @property
    def accepted(self) -> int:
        return self.watch.accepted

    def targets(self) -> tuple[Target, ...]:
        small = save({"a": _zeros(2, 3), "b": _zeros(2)}, {"format": "np"})
        shard = (FIXTURE / "model-00003-of-00003.safetensors").read_bytes()
        length = 8 + int.from_bytes(shard[:8], "little")
        ours = (self._source / directories.SHARDS[0]).read_bytes()
        header_seeds = [small, shard[:length], ours[: 8 + int.from_bytes(ours[:8], "little")]]
        index, config = self._source / directories.INDEX, self._source / directories.CONFIG
        plan = self._out / "gatenorm.json"
        indexes_ = [index.read_bytes(), (FIXTURE / directories.INDEX).read_bytes()]
        configs_ = [config.read_bytes(), (FIXTURE / directories.CONFIG).read_bytes()]
        plans_ = [plan.read_bytes()]

        def headers_of(rng: random.Random) -> bytes:
            data = rng.choice((small, small, header_seeds[1], header_seeds[2]))
            length = 8 + int.from_bytes(data[:8], "little")
            if rng.randrange(6) == 0:
                return mutate(rng, data, header_seeds)
            return headers.wrap(mutate(rng, data[8:length], header_seeds), data[length:])

        def of(seeds: list[bytes]) -> Callable[[random.Random], bytes]:
            return lambda rng: mutate(rng, rng.choice((seeds[0], seeds[0], seeds[-1])), seeds)

        gguf = self._gguf.read_bytes()
        gguf_start = parse_gguf_header(gguf, len(gguf), "seed").header.data_start

        def gguf_headers(rng: random.Random) -> bytes:
            return mutate(rng, gguf[:gguf_start], [gguf[:gguf_start]])

        def gguf_models(rng: random.Random) -> bytes:
            return gguf_headers(rng) + gguf[gguf_start:]

        return (
            Target("headers", 0.4, self.header, headers_of, headers.files()),
            Target("gguf headers", 0.08, partial(self.gguf_header, len(gguf)), gguf_headers),
            Target("gguf files", 0.004, self.gguf, gguf_models),
            Target("indexes", 0.004, self.index, of(indexes_), indexes.files(index)),
            Target("configs", 0.004, self.config, of(configs_), configs.files(config)),
            Target("plans", 0.004, self.saved_plan, of(plans_), saved_plans.files(plan)),
            Target("cards", 0.002, self.card, cards.card),
            Target("pictures and comparisons", 0.001, self.scores, number),
            Target("explanations", 0.001, self.explanation, number),
            Target("directories", 0.001, self.directory, number),
            Target("outputs", 0.002, self.output, number),
            *(target for each in self._others for target in each.targets()),
        )

    def header(self, data: bytes) -> None:
        """Taken or refused as by the safetensors package, or refused for one of the reasons of STRICTER."""
        error = self.watch.case(lambda: _parse(data))
        theirs = _reference(data)
        if error is None:
            if theirs is not None:
                raise FindingError(f"taken, but the safetensors package says: {theirs}")
        elif theirs is None:
            reason = next((name for part, name in STRICTER.items() if part in str(error)), None)
            if reason is None:
                raise FindingError(f"the safetensors package takes it, but: {error}")
            self.stricter[reason] = self.stricter.get(reason, 0) + 1

    def gguf_header(self, size: int, data: bytes) -> None:
        self.watch.case(partial(_parse_gguf, data, size))

    def gguf(self, data: bytes) -> None:
        self._gguf.write_bytes(data)
        self.watch.permit(self._gguf.parent)
        self.watch.case(self._decide_gguf)

    def index(self, data: bytes) -> None:
        self._with_file(self._source / directories.INDEX, data)

    def config(self, data: bytes) -> None:
        self._with_file(self._source / directories.CONFIG, data)

    def saved_plan(self, data: bytes) -> None:
        self._plan.write_bytes(data)
        self.watch.permit(self._plan, self._source)
        self.watch.case(self._apply_plan)

    def directory(self, data: bytes) -> None:
        rng = random.Random(data)
        name = rng.choice(sorted(directories.DAMAGES))
        directories.DAMAGES[name](self._source, rng)
        self.watch.permit(self._source)
        try:
            self.watch.case(self._decide)
        finally:
            self._restore(self._source)

    def output(self, data: bytes) -> None:
        rng = random.Random(data)
        outputs.spoil(self._out, rng, list(self._pristine[self._out].values()))
        self.watch.permit(self._out, self._source)
        against = self._source if rng.randrange(3) == 0 else None
        try:
            self.watch.case(partial(gatenorm_stream.verify, self._out, against=against))
        finally:
            self._restore(self._out)

    def card(self, data: bytes) -> None:
        """The source's model card is read, and what it says is written into the output's."""
        path = self._source / CARD
        path.write_bytes(data)
        self.watch.permit(self._source)
        try:
            self.watch.case(self._make_card)
        finally:
            path.unlink()

    def scores(self, data: bytes) -> None:
        self.watch.permit()
        self.watch.case(partial(_show_scores, random.Random(data)))

    def explanation(self, data: bytes) -> None:
        """Of a record whose scores and digest were made to fit."""
        rng = random.Random(data)
        path = self._out / RECORD
        record = json.loads(path.read_bytes())
        found = scores.some(rng)
        record["layers"] = [{"layer": s.layer, "score": s.score, "heads": list(s.heads)} for s in found]
        record["dropped"] = sorted(rng.sample([s.layer for s in found], rng.randrange(len(found))))
        if rng.randrange(2):
            record["choice"] = {"protect_last": rng.choice([0, 2, -5, 10**30]), "drop": rng.choice([1, 0, 10**30])}
        outputs.resign(self._out, record)
        self.watch.permit(self._out, self._source)
        try:
            self.watch.case(self._explain)
        finally:
            self._restore(self._out)

    def _explain(self) -> None:
        with redirect_stdout(io.StringIO()):
            explain(self._out, debug=True)

    def _make_card(self) -> None:
        with open_checkpoint(LocalSource(self._source)) as checkpoint:
            model = read_model(checkpoint)
            text = front_matter(model, self._saved, source_card(model))
            assert yaml.safe_load(text)["tags"]

    def _with_file(self, path: Path, data: bytes) -> None:
        original = path.read_bytes()
        path.write_bytes(data)
        self.watch.permit(self._source)
        try:
            self.watch.case(self._decide)
        finally:
            path.write_bytes(original)

    def _decide(self) -> None:
        """All that happens before the first byte is written, and what is shown of it."""
        with open_checkpoint(LocalSource(self._source)) as checkpoint:
            model = read_model(checkpoint)
            decision = decide_by_scores(model, scored(model, "per-head", threads=1), Wanted())
            plan, choice = decision.plan, decision.form
            layout = lay_out(plan, model)
            texts = [model_line(model), size_table(model, plan, layout), *plan_lines(decision)]
            texts += [
                *file_lines(layout),
                *layout.texts.values(),
                *model_card(plan, model, layout, choice).values(),
            ]
            for text in texts:
                text.encode("utf-8")

    def _decide_gguf(self) -> None:
        with open_model(open_source(self._gguf)) as model:
            found = scored(model, "per-head", threads=1)
            decision = decide_by_scores(model, found, Wanted(Choice(drop=1, protect_first=0)))
            plan = decision.plan
            layout = lay_out(plan, model)
            for text in (model_line(model), size_table(model, plan, layout), *plan_lines(decision)):
                text.encode("utf-8")

    def _apply_plan(self) -> None:
        plan = read_plan(self._plan)
        with open_checkpoint(LocalSource(self._source)) as checkpoint:
            model = read_model(checkpoint)
            check_plan_fits(plan, model)
            choose_format(model, plan.dropped, plan.format, plan.engines, compensated=bool(plan.constants))
            layout = lay_out(plan, model)
            for text in layout.texts.values():
                text.encode("utf-8")

    def _restore(self, root: Path) -> None:
        shutil.rmtree(root)
        for name, content in self._pristine[root].items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)


def _show_scores(rng: random.Random) -> None:
    a, b = scores.some(rng), scores.some(rng)
    dropped = tuple(s.layer for s in a if rng.randrange(3) == 0)
    picture = score_picture(rng.choice(["m", "\udcff", "</title>", "x" * 5000]), "per-head", a, dropped)
    for text in (svg(picture), html(picture), score_table(a, dropped, width=rng.randrange(200))):
        assert text
    same = tuple(replace(s, score=scores.number(rng)) for s in a)
    for other in (b, same):
        with suppress(GateNormError):
            comparison = compare(a, other, Choice(drop=1, protect_first=0))
            json.dumps(comparison_json(comparison, ("a", "b"), ("per-head", "joint")))
            comparison_table(comparison, ("a", "b"), width=rng.randrange(20, 200))
            list(verdict(comparison))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def _parse(data: bytes) -> None:
    where = header_range(data[:8], len(data), "file")
    parse_header(data[where.start : where.stop], len(data), "file")


def _parse_gguf(data: bytes, size: int) -> None:
    try:
        parse_gguf_header(data, size, "file")
    except IncompleteError:
        raise HeaderError("it goes on") from None


def _reference(data: bytes) -> str | None:
    """What the safetensors package says against a file; None if it takes it."""
    try:
        deserialize(data)
    except SafetensorError as error:
        return str(error)
    return None


def _zeros(*shape: int):
    import numpy as np

    return np.zeros(shape, np.float16)
