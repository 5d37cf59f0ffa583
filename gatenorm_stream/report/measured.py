"""What was measured, in a line."""

from __future__ import annotations

from gatenorm_stream.planning.measured import Measured


def measured_line(measured: Measured) -> str:
    """The loss before and after, and how sure that is."""
    losses = f"loss {measured.loss:.3f} before, {measured.pruned:.3f} after"
    error = f"standard error {measured.error:.3f}"
    place = f"on {measured.tokens} tokens of {measured.text} on which nothing was chosen"
    return f"measured: {losses}: {measured.rise:+.3f} nats a token ({error}), {place}"
