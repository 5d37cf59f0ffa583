"""A plan becomes a layout, whichever kind the model's checkpoint is of."""

from __future__ import annotations

from gatenorm_stream.families.model import Model
from gatenorm_stream.planning.gguf_layout import lay_out_gguf
from gatenorm_stream.planning.layout import Layout
from gatenorm_stream.planning.plan import Plan
from gatenorm_stream.planning.safetensors_layout import lay_out_checkpoint
from gatenorm_stream.sources.source import Kind


def lay_out(plan: Plan, model: Model) -> Layout:
    """Which bytes make which file of the output. Raises FormatError or CheckpointError."""
    arrange = lay_out_gguf if model.checkpoint.kind is Kind.GGUF else lay_out_checkpoint
    return arrange(plan, model)
