"""What a finished output is and why, told from its record alone."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from gatenorm_stream.formats.choice import FORMATS
from gatenorm_stream.measuring.text import BUILT_IN_NAME
from gatenorm_stream.names import SUFFIX
from gatenorm_stream.planning.decide import DEFAULT_TOKENS
from gatenorm_stream.planning.measured import Measured
from gatenorm_stream.planning.plan import Plan
from gatenorm_stream.report.measured import measured_line
from gatenorm_stream.report.quantities import layer_list, si
from gatenorm_stream.scoring.selection import DEFAULT_PROTECT_FIRST, Choice, rank
from gatenorm_stream.writing.record import FileDigest, kind_at, record_path

READ = {
    "per-head": "each head's query-key product by itself, as its softmax sees it",
    "joint": "the query-key product of all heads as one matrix",
    "stored": "the product of the query and key tensors as they are stored",
}
INFLUENCE = (
    "Block influence is how far attention turns the stream: 1 - cosine of the stream before and after it, the mean "
    "over the tokens of a text"
)
CAUTION = (
    "The scores come from the weights alone: they say how strongly queries and keys couple, not what the model "
    "loses without them. Measure that on your task."
)


def what(plan: Plan, files: Mapping[str, FileDigest]) -> Iterator[tuple[str, str]]:
    """(name, value) pairs."""
    verb = "removed from" if FORMATS[plan.format].removes else "zeroed in"
    heads = max(len(s.heads) for s in plan.scores)
    yield "source", f"{plan.source} at {plan.revision}" if plan.revision else f"{plan.source} (local)"
    yield (
        "model",
        f"{plan.family}, {len(plan.scores)} layers with attention" + (f", {heads} heads" if heads else ""),
    )
    yield "attention", f"{verb} {len(plan.dropped)} of them: {layer_list(plan.dropped)} (counted from 0)"
    yield "format", plan.format + (f", to run in {', '.join(plan.engines)}" if plan.engines else "")
    size = si(sum(f.size for f in files.values()), "B")
    yield "files", f"{'1 file' if len(files) == 1 else f'{len(files)} files'}, {size}"
    yield "made by", f"gatenorm-stream {plan.tool_version}"


def why(plan: Plan) -> Iterator[str]:
    """Sentences that say how the layers were chosen."""
    if not plan.scored:
        yield f"The layers were named (--layers {layer_list(plan.dropped)}): packed weights are not scored."
        return
    if plan.scores_of:
        yield f"The scores are those of {plan.scores_of}: these weights are packed."
    if plan.reading:
        formula = f"the Frobenius norm of {READ[plan.reading]} (reading {plan.reading})"
        yield f"Gate-Norm (arXiv 2512.20636) is {formula}; the lowest goes first."
    else:
        yield f"{INFLUENCE}; the lowest goes first."
    ranks = {s.layer: n for n, s in enumerate(rank(plan.scores), start=1)}
    held = layer_list(tuple(sorted(ranks[n] for n in plan.dropped)))
    yield f"{_asked(plan)} Those that went hold the ranks {held} of {len(ranks)}."
    if plan.choice and plan.choice.layers is None:
        yield from _passed_over(plan, plan.choice, ranks)
    if plan.constants:
        yield "The mean of its output on the text takes the place of each attention that went."
    yield f"{_sentence(measured_line(plan.measured, plan.choice))}." if plan.measured else CAUTION


def commands(plan: Plan, out: Path, command: str) -> Iterator[tuple[str, str]]:
    """(what it does, the line to type) pairs. `command` is what starts gatenorm-stream here."""
    yield "check every byte", f"{command} verify {shlex.quote(str(out))}"
    begin = [plan.model, "--out", f"AGAIN{SUFFIX if out.is_file() else ''}"]
    same = shlex.join([*begin, "--plan", str(record_path(out, kind_at(out)))])
    yield "remove the same layers again", f"{command} {same}"
    if plan.choice:
        yield "choose anew, in the same way", f"{command} {shlex.join([*begin, *_options(plan, plan.choice)])}"


def _measured_on(measured: Measured) -> Iterator[str]:
    if measured.text != BUILT_IN_NAME:
        yield from ("--text", measured.text)
    if measured.tokens != DEFAULT_TOKENS:
        yield from ("--tokens", str(measured.tokens))


def _sentence(line: str) -> str:
    return line[0].upper() + line[1:]


def _asked(plan: Plan) -> str:
    choice, count = plan.choice, len(plan.dropped)
    if choice is None:
        return "What was asked for is not on record."
    if choice.layers is not None:
        return f"The layers were named (--layers {layer_list(plan.dropped)}), whatever their scores."
    if choice.max_rise is not None:
        limit = f"a rise of {choice.max_rise:g} nats a token (--max-rise {choice.max_rise:g})"
        return f"Asked for were as many as {limit} allows, which is {count}."
    if choice.drop is not None:
        return f"Asked for were {count} (--drop {count})."
    share = "an eighth, the default," if choice.share is None else f"a share of {choice.share:g}"
    return f"Asked for was {share} of the sublayers, which is {count}."


def _passed_over(plan: Plan, choice: Choice, ranks: Mapping[int, int]) -> Iterator[str]:
    """Protected layers that score lower than one that went; and which would have been next."""
    first = DEFAULT_PROTECT_FIRST if choice.protect_first is None else choice.protect_first
    end = plan.scores[-1].layer - choice.protect_last
    free = [s for s in rank(plan.scores) if first <= s.layer <= end]
    highest = max(ranks[n] for n in plan.dropped)
    spared = tuple(s.layer for s in plan.scores if ranks[s.layer] < highest and not (first <= s.layer <= end))
    if spared:
        options = f"--protect-first {first}, --protect-last {choice.protect_last}"
        reason = "; llama.cpp and vLLM can't run without layer 0's" if 0 in spared else ""
        yield f"Protected ({options}) and kept in spite of a lower score: {layer_list(spared)}{reason}."
    elif first or choice.protect_last:
        options = f"--protect-first {first}, --protect-last {choice.protect_last}"
        yield f"Protection ({options}) changed nothing: no layer that it covers scores so low."
    kept = [s for s in free if s.layer not in plan.dropped]
    if kept:
        last = max((s for s in plan.scores if s.layer in plan.dropped), key=lambda s: ranks[s.layer])
        gap = f", {100 * (kept[0].score / last.score - 1):.1f} % above the last that went" if last.score else ""
        yield f"Next would have been layer {kept[0].layer} ({kept[0].score:.5g}{gap})."


def _options(plan: Plan, choice: Choice) -> Iterator[str]:
    if choice.layers is not None:
        yield from ("--layers", layer_list(plan.dropped))
    if choice.drop is not None:
        yield from ("--drop", str(choice.drop))
    if choice.share is not None:
        yield from ("--share", repr(choice.share))
    if choice.max_rise is not None:
        yield from ("--max-rise", repr(choice.max_rise))
    if choice.protect_first is not None:
        yield from ("--protect-first", str(choice.protect_first))
    if choice.protect_last:
        yield from ("--protect-last", str(choice.protect_last))
    if plan.reading is None and plan.scored:
        yield from ("--by", "influence")
    elif plan.reading and plan.reading != "per-head":
        yield from ("--reading", plan.reading)
    if plan.constants:
        yield "--compensate"
    if plan.measured:
        yield from _measured_on(plan.measured)
    yield from ("--format", plan.format)
    for engine in plan.engines:
        yield from ("--engine", engine)
    for name in plan.also:
        yield from ("--also", name)
