"""Remove attention sublayers from an LLM checkpoint, and measure what that costs, without loading it.

    import gatenorm_stream

    scores = gatenorm_stream.score("path/to/model")
    plan = gatenorm_stream.plan("path/to/model", drop=8)
    gatenorm_stream.prune(plan, "path/to/output")
    gatenorm_stream.verify("path/to/output", against="path/to/model")

Nothing heavy is imported before one of these is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gatenorm_stream.api import (
        GateNormError,
        LayerScore,
        Measurement,
        Plan,
        Progress,
        Reading,
        VerificationError,
        Verified,
        measure,
        plan,
        prune,
        read_plan,
        score,
        verify,
    )

    __version__: str

__all__ = [
    "GateNormError",
    "LayerScore",
    "Measurement",
    "Plan",
    "Progress",
    "Reading",
    "VerificationError",
    "Verified",
    "measure",
    "plan",
    "prune",
    "read_plan",
    "score",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from gatenorm_stream.version import VERSION

        return VERSION
    if name in __all__:
        from gatenorm_stream import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
