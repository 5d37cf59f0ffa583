"""The entry point by which vLLM runs what gatenorm-stream wrote, without trust_remote_code.

vLLM calls `register` in each of its processes (entry point group `vllm.general_plugins`). It adds two kinds of
config.json and one architecture for each stock model class that can be pruned; no model code is imported for it.
"""

from __future__ import annotations


def register() -> None:
    """Makes outputs of the formats `no-op` and `transformers` known; may be called any number of times."""
    import vllm
    from transformers import AutoConfig

    from gatenorm_stream.formats.vllm_served import SERVED
    from gatenorm_stream.runtime import vllm_configs

    AutoConfig.register("nemotron-nas", vllm_configs.NoOpConfig, exist_ok=True)
    AutoConfig.register("gatenorm", vllm_configs.GateNormConfig, exist_ok=True)
    known = vllm.ModelRegistry.get_supported_archs()
    for architecture in (name for name in SERVED if name in known):
        # vLLM keeps what it found out about a class on disk, under this name: of another vLLM, it could be wrong.
        name = f"{architecture}@{vllm.__version__}"
        vllm.ModelRegistry.register_model(
            vllm_configs.pruned_name(architecture), f"gatenorm_stream.runtime.vllm_models:{name}"
        )
