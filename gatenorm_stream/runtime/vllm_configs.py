"""config.json of a pruned model, as vLLM reads it.

Both classes stand in AutoConfig's table and hand out an instance of the source model's own config class, so that
vLLM treats the model as it would treat the source, and so that other processes can unpickle it.
"""

from __future__ import annotations

from typing import Any

from transformers import CONFIG_MAPPING, LlamaConfig, PreTrainedConfig

from gatenorm_stream.formats.vllm_served import SERVED
from gatenorm_stream.runtime.modeling_gatenorm import Block
from gatenorm_stream.runtime.no_op_config import MODEL_TYPE, no_op_config


def pruned_name(architecture: str) -> str:
    """The name under which vLLM knows the pruned form of a stock architecture."""
    return f"GateNorm{architecture}"


def _as_llama(config_dict: dict[str, Any], **kwargs: Any) -> Any:
    written = dict(config_dict)
    blocks = [Block({part: Block(of) for part, of in block.items()}) for block in written.pop("block_configs")]
    for key in ("auto_map", "model_type", "rope_theta", "rope_scaling"):  # rope_parameters says it all
        written.pop(key, None)
    return _with(LlamaConfig.from_dict(written, **kwargs), model_type=MODEL_TYPE, block_configs=blocks)


NoOpConfig = no_op_config(_as_llama)
"""Format `no-op`: vLLM's own DeciLM class runs it."""


class GateNormConfig(PreTrainedConfig):
    """Format `transformers`: the source's stock vLLM class, without the pruned attention, runs it."""

    model_type = "gatenorm"

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Raises ValueError if the source's architecture is not among `SERVED`."""
        written = dict(config_dict)
        source = written["gatenorm"]
        architecture = source["architecture"]
        if architecture not in SERVED:
            raise ValueError(
                f"gatenorm-stream does not run a pruned {architecture} in vLLM, only: {', '.join(SERVED)}; "
                "prune with --format zeroed instead"
            )
        del written["auto_map"]
        written |= {"model_type": source["model_type"], "architectures": [pruned_name(architecture), architecture]}
        return CONFIG_MAPPING[source["model_type"]].from_dict(written, **kwargs)


def _with(loaded: Any, **attributes: Any) -> Any:
    """`loaded` as from_dict returns it: a config, or with return_unused_kwargs a pair that begins with one."""
    config = loaded[0] if isinstance(loaded, tuple) else loaded
    for name, value in attributes.items():
        setattr(config, name, value)
    return loaded
