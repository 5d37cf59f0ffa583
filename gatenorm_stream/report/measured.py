"""What was measured, in a line."""

from __future__ import annotations

from gatenorm_stream.planning.measured import Measured
from gatenorm_stream.scoring.selection import Choice


def measured_line(measured: Measured, choice: Choice | None) -> str:
    """The loss before and after, how sure that is, and on what; or that it is another model's.

    `choice` is what was asked for.
    """
    if measured.elsewhere:
        return f"not measured: what the plan was measured on is another model, {measured.elsewhere}"
    losses = f"loss {measured.loss:.3f} before, {measured.pruned:.3f} after"
    error = f"standard error {measured.error:.3f}"
    by_rise = choice is not None and choice.max_rise is not None
    part = "that decided how many go, and nothing else" if by_rise else "that had no part in the choice"
    sample = f"on {measured.tokens} tokens of {measured.text} {part}"
    return f"measured: {losses}: {measured.rise:+.3f} nats a token ({error}), {sample}"
