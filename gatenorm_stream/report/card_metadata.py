"""The front matter of an output's model card: what the source's card says, and where the output comes from."""

from __future__ import annotations

from typing import Any

from gatenorm_stream.families.model import Model
from gatenorm_stream.names import CARD
from gatenorm_stream.planning.plan import Plan
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.source import Kind

LARGEST_CARD = 1 << 20
CARRIED_OVER = ("license", "license_name", "license_link", "language", "library_name", "pipeline_tag")
TAG = "pruned"
GATE_NORM = "gate-norm"
RELATION = "finetune"
"""Of the four that the Hub knows (adapter, merge, quantized, finetune), the one for another model made of one."""


def front_matter(model: Model, plan: Plan) -> str:
    """YAML that the Hub accepts. What the source's card has in another form than the Hub's is left out."""
    from huggingface_hub.repocard_data import ModelCardData

    found = _source_metadata(model)
    carried = {k: found[k] for k in CARRIED_OVER if _is_text(found.get(k))}
    base = _base(model, found)
    origin = {"base_model": base, "base_model_relation": RELATION} if base else {}
    tags = [tag for tag in _listed(found.get("tags")) if _is_text(tag)]
    own = [GATE_NORM, TAG] if plan.reading else [TAG]
    data = ModelCardData(**carried, **origin, tags=[*dict.fromkeys([*tags, *own])])
    return data.to_yaml()


def _base(model: Model, found: dict[str, Any]) -> Any:
    """The repository that the source is; of a local directory, the one that its card says it comes from."""
    source = model.checkpoint.source
    if source.revision:
        return source.title.partition(":")[0]
    return found.get("base_model") if _is_text(found.get("base_model")) else None


def _is_text(value: Any) -> bool:
    texts = value if isinstance(value, list) else [value]
    return bool(texts) and all(isinstance(text, str) and text.strip() for text in texts)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _source_metadata(model: Model) -> dict[str, Any]:
    """The front matter of the source's card; empty if it has none that can be read."""
    source = model.checkpoint.source
    if source.kind is Kind.GGUF and not source.revision:
        told = model.text.get("general.license")  # what else lies in a folder of GGUF files may be another model's
        return {"license": told} if isinstance(told, str) else {}
    if CARD not in source.names():
        return {}
    from huggingface_hub import ModelCard

    file = source.open(CARD)
    text = bytes(file.read(ByteRange(0, min(file.size, LARGEST_CARD)))).decode("utf-8", errors="replace")
    try:
        found: dict[str, Any] = ModelCard(text, ignore_metadata_errors=True).data.to_dict()  # type: ignore[no-untyped-call]
    except Exception:  # whatever the parser makes of a stranger's file: a bad card must not stop the pruning
        return {}
    return found
