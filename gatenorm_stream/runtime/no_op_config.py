"""The config class of the format `no-op`, for whoever reads it: transformers here, vLLM's plugin there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PretrainedConfig

MODEL_TYPE = "nemotron-nas"


def no_op_config(read: Callable[..., Any]) -> type[PretrainedConfig]:
    """A class for AutoConfig's table whose `from_dict` is `read`.

    It raises ValueError for another checkpoint of this type: NVIDIA's, which need their own code. transformers
    prefers a class from outside its own package to a checkpoint's code, even under trust_remote_code; so this one
    must not look as if it came from outside.
    """

    class NoOpConfig(PretrainedConfig):
        model_type = MODEL_TYPE

        @classmethod
        def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
            if "gatenorm" not in config_dict:
                raise ValueError(
                    f"this {MODEL_TYPE} checkpoint was not written by gatenorm-stream; its own code runs it: "
                    "trust_remote_code=True"
                )
            return read(config_dict, **kwargs)

    NoOpConfig.__module__ = PretrainedConfig.__module__
    return NoOpConfig
