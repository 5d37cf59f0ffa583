"""The output's README.md: a model card with metadata that the Hub understands."""

from __future__ import annotations

from typing import Any

from gatenorm_stream.checkpoint.ranges import ByteRange
from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.choice import FORMATS, FormatChoice, describe
from gatenorm_stream.layout import CARD, Layout
from gatenorm_stream.plans import Plan
from gatenorm_stream.report.quantities import layer_list
from gatenorm_stream.report.score_table import score_table
from gatenorm_stream.report.summary import UNTRIED, size_rows

LARGEST_CARD = 1 << 20
CARRIED_OVER = ("license", "license_name", "license_link", "language", "tags", "library_name", "pipeline_tag")

CAUTION = """\
The layers were chosen from the weights alone. The paper (arXiv 2512.20636) reports 8 to 16 of 40 attention
sublayers of 13B LLaMA models removed within 2 % of their accuracy. The tool's own measurements, on small models,
are mixed: on some the chosen layers were worse than random ones. Measure this model on your task before you use
it."""

RUN_TRANSFORMERS = """\
```python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("path/to/this/directory", trust_remote_code=True)
```

transformers needs `trust_remote_code=True` for the one file `modeling_gatenorm.py`, which leaves out the attention
of the layers named above and else is the stock model."""

RUN_NO_OP = f"""\
{RUN_TRANSFORMERS}

llama.cpp's `convert_hf_to_gguf.py` and `mlx_lm.load` take the directory as it is."""

RUN_ZEROED = """\
Load it as the original model; no custom code is needed. Every shape is kept: the output projections of the layers
named above are zero, which saves neither memory nor time by itself."""

RUN = {"no-op": RUN_NO_OP, "transformers": RUN_TRANSFORMERS, "zeroed": RUN_ZEROED}


def model_card(plan: Plan, model: Model, layout: Layout, choice: FormatChoice) -> dict[str, str]:
    """The card's file name and text."""
    from huggingface_hub.repocard_data import ModelCardData

    source = _source_metadata(model)
    tags = source.pop("tags", None)
    tags = [t for t in tags if isinstance(t, str)] if isinstance(tags, list) else []
    data = ModelCardData(**source, tags=[*dict.fromkeys([*tags, "gate-norm", "pruned"])])
    sizes = "\n".join(f"| {a} | {b} | {c} | {d} |" for a, b, c, d in size_rows(model, plan, layout))
    verb = "removed from" if FORMATS[plan.format].removes else "zeroed in"
    limits = "".join(f"\n- {line}" for line in (*map(describe, choice.limits), *choice.cautions))
    engines = ", ".join(UNTRIED.get(e, e) for e in choice.engines)
    origin = model.checkpoint.source
    title = origin.directory.resolve().name if origin.directory and not origin.revision else origin.title
    body = f"""\
# {title}, {len(plan.dropped)} of {len(plan.scores)} attention sublayers {verb.split()[0]}

Made with gatenorm-stream {plan.tool_version} from `{title}`: self-attention {verb} layers
{layer_list(plan.dropped)} (counted from 0). Their MLPs stay; every kept tensor is byte-identical to the source's.

| | before | after | change |
|---|---|---|---|
{sizes}

{CAUTION}

## How to run it

Format `{plan.format}`: runs in {engines}.{limits}

{RUN[plan.format]}

## Scores

Gate-Norm, reading `{plan.reading}`, least coupled first:

```text
{score_table(plan.scores, plan.dropped)}
```

`gatenorm.json` holds every score and the digest of every file; `gatenorm-stream verify` checks them.
"""
    return {CARD: f"---\n{data.to_yaml()}\n---\n\n{body}"}


def _source_metadata(model: Model) -> dict[str, Any]:
    """What carries over from the front matter of the source's card; empty if it has none that can be read."""
    source = model.checkpoint.source
    if CARD not in source.names():
        return {}
    from huggingface_hub import ModelCard

    file = source.open(CARD)
    text = bytes(file.read(ByteRange(0, min(file.size, LARGEST_CARD)))).decode("utf-8", errors="replace")
    try:
        found: dict[str, Any] = ModelCard(text, ignore_metadata_errors=True).data.to_dict()  # type: ignore[no-untyped-call]
    except Exception:  # whatever the parser makes of a stranger's file: a bad card must not stop the pruning
        return {}
    return {k: found[k] for k in CARRIED_OVER if k in found}
