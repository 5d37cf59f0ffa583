"""`gatenorm.json`: the plan that made an output, the digest of every file of it, and a digest of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gatenorm_stream.errors import VerificationError
from gatenorm_stream.plans import Plan, plan_from_json

RECORD = "gatenorm.json"


@dataclass(frozen=True)
class FileDigest:
    size: int
    sha256: str


def render_record(plan: Plan, files: Mapping[str, FileDigest]) -> str:
    """The one text that stands for this plan and these files: what differs from it in a byte was changed."""
    content: dict[str, Any] = {
        **plan.to_json(),
        "files": {name: {"size": f.size, "sha256": f.sha256} for name, f in sorted(files.items())},
    }
    content["sha256"] = hashlib.sha256(_text(content).encode("utf-8")).hexdigest()
    return _text(content)


def parse_record(text: str, where: str) -> tuple[Plan, dict[str, FileDigest]]:
    """Raises PlanError or VerificationError if `text` is not exactly what `render_record` wrote."""
    damaged = VerificationError(where, [f"{RECORD} was changed after it was written"])
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise damaged from None
    plan = plan_from_json(content, where)
    try:
        files = {name: FileDigest(f["size"], f["sha256"]) for name, f in content["files"].items()}
    except (AttributeError, KeyError, TypeError):
        raise damaged from None
    if render_record(plan, files) != text:
        raise damaged
    return plan, files


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
