"""Pruned models of full-size shapes with random weights, made on the GPU from a config that the command wrote.

Speed and memory do not depend on the weights' values. The command prunes a stock checkpoint that has the shape's
number of layers but is narrow; in the config.json that it writes only the widths are then put back.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

NARROW = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "vocab_size": 256,
}


@dataclass(frozen=True)
class Shape:
    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_heads: int
    vocabulary: int = 32_000

    @property
    def widths(self) -> dict[str, int]:
        return {
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads,
            "head_dim": self.hidden // self.heads,
            "vocab_size": self.vocabulary,
        }


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("13b", 40, 5120, 13824, 40, 40),
        Shape("7b-gqa", 32, 4096, 14336, 32, 8),
        Shape("toy", 8, 256, 768, 4, 2, 1000),
    )
}


def spread(layers: int, count: int) -> list[int]:
    """`count` layers spread evenly over all but the first."""
    return sorted({1 + i * (layers - 1) // count for i in range(count)})


def write_config(shape: Shape, pruned: Sequence[int], folder: Path) -> Path:
    """A directory with the config (and runtime file) of the shape without the attention of `pruned`."""
    narrow = folder / f"narrow-{shape.layers}"
    if not narrow.exists():
        LlamaForCausalLM(LlamaConfig(num_hidden_layers=shape.layers, **NARROW)).save_pretrained(narrow)
    out = folder / f"{shape.name}-{len(pruned)}"
    words = ["gatenorm-stream", "prune", narrow, "--out", out, "--format", "no-op", "--quiet"]
    if pruned:
        subprocess.run([*words, "--layers", ",".join(map(str, pruned))], check=True)
        config = json.loads((out / "config.json").read_text())
    else:
        out.mkdir()
        config = json.loads((narrow / "config.json").read_text())
    config |= shape.widths | {"max_position_embeddings": 16_384}
    for weights in out.glob("*.safetensors"):
        weights.unlink()
    (out / "config.json").write_text(json.dumps(config))
    return out


def random_model(directory: Path, device: str, dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(directory, trust_remote_code=True)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=True)
    return model.eval().requires_grad_(False)
