"""Makes our model types known to transformers."""

from transformers import AutoConfig

from gatenorm_stream.runtime.modeling_gatenorm import GateNormConfig


class NoOpConfig(GateNormConfig):
    """The config of the format `no-op`; AutoConfig wants a class for each type."""

    model_type = "nemotron-nas"


def register() -> None:
    """May be called again and again."""
    for config in (GateNormConfig, NoOpConfig):
        AutoConfig.register(config.model_type, config, exist_ok=True)
