"""Makes our model types known to transformers."""

from transformers import AutoConfig, PretrainedConfig

from gatenorm_stream.runtime.modeling_gatenorm import GateNormConfig


class NoOpConfig(GateNormConfig):
    """The config of the format `no-op`; AutoConfig wants a class for each type."""

    model_type = "nemotron-nas"

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        """Raises ValueError if the checkpoint is another one of this type."""
        if "gatenorm" not in config_dict:
            raise ValueError(
                "this nemotron-nas checkpoint was not written by gatenorm-stream; its own code runs it: "
                "trust_remote_code=True"
            )
        return super().from_dict(config_dict, **kwargs)


# transformers prefers a class from outside its own package to a checkpoint's code even under trust_remote_code.
# NVIDIA's models of this type need theirs, so this class must not look like one from outside.
NoOpConfig.__module__ = PretrainedConfig.__module__


def register() -> None:
    """May be called again and again."""
    for config in (GateNormConfig, NoOpConfig):
        AutoConfig.register(config.model_type, config, exist_ok=True)
