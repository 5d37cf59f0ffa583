"""The output's README.md, a model card for the Hub, and the picture in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath

from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.choice import FORMATS, FormatChoice, describe
from gatenorm_stream.measuring.text import BUILT_IN_NAME
from gatenorm_stream.names import CARD, PICTURE, utf8
from gatenorm_stream.planning.layout import Layout
from gatenorm_stream.planning.measured import Measured
from gatenorm_stream.planning.plan import Plan
from gatenorm_stream.printable import as_code, markdown
from gatenorm_stream.report.card_metadata import front_matter, source_card
from gatenorm_stream.report.chosen import chosen_by
from gatenorm_stream.report.picture import score_picture
from gatenorm_stream.report.quantities import layer_list
from gatenorm_stream.report.running import run_gguf, run_it, runs_own_code
from gatenorm_stream.report.score_table import score_table
from gatenorm_stream.report.summary import UNTRIED, size_rows
from gatenorm_stream.report.svg import svg
from gatenorm_stream.sources.source import Kind, Source

CAUTION = "**Measure this model on your task before you use it.**"

BY_GATE_NORM = """\
Its layers were chosen from the weights alone. The paper
(arXiv 2512.20636) reports 8 to 16 of 40 attention sublayers of 13B LLaMA models removed within 2 % of their
accuracy. The tool's own measurements, on 40 models of 20 to 91 M parameters in four groups, told the choice from
chance on one group of 8; of a public model, SmolLM2 135M, a fifth chosen so broke the text."""

BY_INFLUENCE = """\
Its layers were chosen by block influence: how far their
attention turned the stream on {tokens} tokens of {text}{elsewhere}."""

BY_NAME = "Its layers were named by whoever made it."

MEASURED = """\
The loss on {tokens} tokens of {text} is {before:.3f} nats a token before and
{after:.3f} after, a rise of {rise:+.3f} (standard error {error:.3f}). So little text gives a hint, no more."""

NOT_MEASURED = "Nobody has measured this output."

KEPT = "every kept tensor is byte-identical to the source's."
KEPT_GGUF = "what is kept is as it was, quantised or not."
FOLDER = "`pruned` is the directory of these files."
RECORD_WITHIN = "`gatenorm.json`"
RECORD_BESIDE = "The `.gatenorm.json` beside it"
FILE = "`pruned.gguf` is the file."
PICTURED = """\
 The attention of the hollow bars is {done}.

![A bar for the score of each layer, hollow where its attention is {done}, and the norms of its heads]({picture})"""

CONSTANTS = """\
A constant vector takes the place of each: the mean of its output on a text. It is in tensors that were added, and
in `gatenorm.json`."""

ZEROED = """\
Every shape is kept: the output projections of the layers named above are zero, which saves neither memory nor time
by itself. {code}"""


def _chosen(plan: Plan) -> str:
    if plan.choice and plan.choice.layers is not None:
        return BY_NAME
    if plan.reading:
        return BY_GATE_NORM
    measured = plan.measured
    return (
        BY_INFLUENCE.format(tokens=measured.tokens, text=_text(measured), elsewhere=_elsewhere(measured))
        if measured
        else BY_NAME
    )


def _measured(plan: Plan) -> str:
    if not (measured := plan.own_measurement):
        return NOT_MEASURED
    return MEASURED.format(
        tokens=measured.tokens,
        text=_text(measured),
        before=measured.loss,
        after=measured.pruned,
        rise=measured.rise,
        error=measured.error,
    )


def _elsewhere(measured: Measured) -> str:
    return f", in another model, {as_code(PurePath(measured.elsewhere).name)}" if measured.elsewhere else ""


def _text(measured: Measured) -> str:
    """A file's name alone: its folder is nobody's business."""
    return measured.text if measured.text == BUILT_IN_NAME else as_code(PurePath(measured.text).name)


def model_card(
    plan: Plan, model: Model, layout: Layout, choice: FormatChoice, note: Callable[[str], None] = lambda line: None
) -> dict[str, str]:
    """The names and texts of the card and its picture; of a GGUF file, beside which the card stands, no picture.

    What of the source's card is not carried over goes to `note`. Raises CheckpointError if that can't be read.
    """
    found = source_card(model)
    for remark in found.remarks:
        note(remark)
    gguf = layout.kind is Kind.GGUF
    removes = FORMATS[plan.format].removes
    done, place = ("removed", "from") if removes else ("zeroed", "in")
    origin = model.checkpoint.source
    title = origin.title if origin.revision else PurePath(origin.title).name if gguf else _folder(origin)
    sizes = "\n".join(f"| {a} | {b} | {c} | {d} |" for a, b, c, d in size_rows(model, plan, layout))
    limits = "".join(f"\n- {markdown(line)}" for line in (*map(describe, choice.limits), *choice.cautions))
    zeroed = ZEROED.format(code="Its own code runs it." if runs_own_code(model) else "No custom code is needed.")
    engines = ", ".join(UNTRIED.get(e, e) for e in choice.engines)
    how = run_gguf() if gguf else run_it(model, removes, choice.engines, layout.code)
    blocks = "\n\n".join([*([] if removes else [zeroed]), *how])
    record = RECORD_BESIDE if gguf else RECORD_WITHIN
    held = f"{CONSTANTS}\n" if plan.constants and choice.holds_constants else ""
    body = f"""\
# {markdown(title)}, {len(plan.dropped)} of {len(plan.scores)} attention sublayers {done}

Made with gatenorm-stream {plan.tool_version} from {as_code(title)}: self-attention {done} {place} layers
{layer_list(plan.dropped)} (counted from 0). Their MLPs stay; {KEPT_GGUF if gguf else KEPT}
{held}
| | before | after | change |
|---|---|---|---|
{sizes}

{CAUTION} {_chosen(plan)}
{_measured(plan)}

## How to run it

Format `{plan.format}`: runs in {engines}. {FILE if gguf else FOLDER}{limits}

{blocks}

{_scores(plan, done, pictured=not gguf)}
{record} holds every score and the digest of every file: `gatenorm-stream verify` checks them,
`gatenorm-stream explain` tells why these layers and how to repeat it.
"""
    text = f"---\n{front_matter(model, plan, found)}\n---\n\n{body}"
    if gguf or not plan.scored:
        return {CARD: text}
    picture = score_picture(title, plan.reading, plan.scores, plan.dropped, fate=f"is {done}")
    return {CARD: text, PICTURE: svg(picture)}


def _folder(origin: Source) -> str:
    return utf8(origin.directory.resolve().name) if origin.directory else origin.title


def _scores(plan: Plan, done: str, *, pictured: bool) -> str:
    if not plan.scored:
        return ""
    picture = PICTURED.format(done=done, picture=PICTURE) if pictured else ""
    return f"""\
## Scores

{chosen_by(plan, code=as_code)}; the lowest goes first.{picture}

<details>
<summary>The scores as text</summary>

```text
{score_table(plan.scores, plan.dropped, what="score" if plan.reading else "influence")}
```

</details>
"""
