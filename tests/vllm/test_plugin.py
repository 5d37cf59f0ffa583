"""What the plugin does to vLLM and transformers, without an engine."""

from __future__ import annotations

import json

import pytest
from transformers import AutoConfig, LlamaConfig
from vllm import ModelRegistry
from vllm.plugins import load_general_plugins

from gatenorm_stream.formats.vllm_served import SERVED
from gatenorm_stream.runtime.vllm_plugin import register
from tests.vllm import vllm_sources

pytestmark = pytest.mark.engines


@pytest.fixture(autouse=True)
def plugin():
    """vLLM finds it by its entry point."""
    load_general_plugins()


def test_every_architecture_served_is_tested():
    assert sorted(SERVED) == sorted(vllm_sources.CONFIGS)


def test_vllm_finds_it_and_may_load_it_again():
    before = dict(ModelRegistry.models)
    register()
    assert ModelRegistry.models == before
    assert "GateNormQwen3ForCausalLM" in before


def test_an_architecture_that_is_not_served_is_named(tmp_path):
    form = {"model_type": "llama", "architecture": "DeepseekV3ForCausalLM"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gatenorm", "auto_map": {}, "gatenorm": form}))
    with pytest.raises(ValueError, match="does not run a pruned DeepseekV3ForCausalLM"):
        AutoConfig.from_pretrained(tmp_path)


def test_other_nemotron_nas_models_keep_their_own_code(tmp_path):
    config = LlamaConfig(num_hidden_layers=2).to_dict()
    config |= {"model_type": "nemotron-nas", "auto_map": {"AutoConfig": "theirs.TheirConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "theirs.py").write_text(
        "from transformers import LlamaConfig\n\nclass TheirConfig(LlamaConfig):\n    model_type = 'nemotron-nas'\n"
    )
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        AutoConfig.from_pretrained(tmp_path)
    theirs = AutoConfig.from_pretrained(tmp_path, trust_remote_code=True)
    assert type(theirs).__name__ == "TheirConfig"
