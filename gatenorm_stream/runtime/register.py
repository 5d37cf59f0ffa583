"""Makes our model types known to transformers."""

from transformers import AutoConfig

from gatenorm_stream.runtime.modeling_gatenorm import GateNormConfig
from gatenorm_stream.runtime.no_op_config import no_op_config

CONFIGS = (GateNormConfig, no_op_config(GateNormConfig.from_dict))


def register() -> None:
    """May be called again and again."""
    for config in CONFIGS:
        AutoConfig.register(config.model_type, config, exist_ok=True)
