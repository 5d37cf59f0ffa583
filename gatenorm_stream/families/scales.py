"""The numbers that an engine multiplies 8-bit weights by: found beside the weight, checked, and never guessed.

Spellings, each `MODULE.weight_scale_inv` or the like beside `MODULE.weight`; all of them multiply:

    weight_scale_inv   DeepSeek, transformers' `fp8`: one for each block of weight_block_size, or one for all
    weight_scale       compressed-tensors, ModelOpt, FBGEMM, Quark: one for all, for each row, or for each block
    qscale_weight      Mistral: one for all
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gatenorm_stream.checkpoint.tensors import Tensor
from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.families.projections import Weight
from gatenorm_stream.families.scope import Scope
from gatenorm_stream.families.unread import UnreadError

FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")
FLOAT8_DTYPES = ("F8_E4M3", "F8_E5M2")
SCALES = ("weight_scale_inv", "weight_scale", "qscale_weight")
POWERS = "F8_E8M0"
"""A scale that is a power of two, in a byte."""
NOT_OF_THE_WEIGHT = ("weight", "bias", "k_scale", "v_scale", "q_scale")
"""Parts of a module that don't change its weight: the last three are of caches, ..."""
ACTIVATIONS = ("input", "output", "activation", "act")
"""... and parts whose names begin so are of what goes in or comes out."""
QUANTISATION = ("quantization_config", "compression_config", "quantization")
"""Where config.json tells it: as transformers has it, as compressed-tensors once had it, and as MLX has it."""
MODELOPT = "hf_quant_config.json"
"""Where older checkpoints of ModelOpt say how they are quantised."""


def quantisation(scope: Scope) -> Mapping[str, Any]:
    """What config.json says of how weights are quantised, with its `quant_method`; empty if it says nothing."""
    for config in (scope.checkpoint.config, scope.config):
        for key in QUANTISATION:
            if isinstance(found := config.get(key), dict):
                method = found.get("quant_method") or ("mlx" if "quantization" in config else "unknown")
                return {**found, "quant_method": str(method)}
    return {}


def scaled(scope: Scope, module: str, tensor: Tensor) -> Weight:
    """8-bit numbers with what multiplies them: one number for all, one for each row, or one for each block.

    Raises CheckpointError if config.json promises a scale and there is none, UnreadError for a scale of an unknown
    kind.
    """
    title = scope.checkpoint.source.title
    beside = dict(_beside(scope, module))
    scale = next((beside[name] for name in SCALES if name in beside), None)
    if scale is None:
        if beside:
            other = next(iter(beside.values())).name
            raise UnreadError(f"{other} in {title} is no scale of a known kind for {tensor.name} ({tensor.dtype})")
        if quantisation(scope) or MODELOPT in scope.checkpoint.source.names():
            raise CheckpointError(
                f"{title} has no {scope.prefix}{module}.{' or '.join(SCALES[:2])}, though its config promises "
                f"quantised weights and {tensor.name} is {tensor.dtype}; it is incomplete, download it again"
            )
        return Weight(tensor)
    block = _block(scope, tensor, scale)
    if block is None or scale.dtype not in (*FLOAT_DTYPES, POWERS):
        raise UnreadError(
            f"{scale.name} in {title} ({scale.dtype}, {list(scale.shape)}) is no known kind of scale for "
            f"{tensor.name}, {list(tensor.shape)}"
        )
    return Weight(tensor, scale, block)


def check_unscaled(scope: Scope, module: str, tensor: Tensor) -> None:
    """Raises UnreadError if plain numbers have the scale of quantised ones beside them.

    compressed-tensors' form `dense` has: there they only tell how the numbers were rounded.
    """
    if quantisation(scope).get("format") == "dense":
        return
    for name, beside in _beside(scope, module):
        if name in SCALES:
            raise UnreadError(
                f"{beside.name} in {scope.checkpoint.source.title} is the scale of quantised numbers, but "
                f"{tensor.name} is {tensor.dtype}, and what engines make of that is not known"
            )


def _beside(scope: Scope, module: str) -> Iterator[tuple[str, Tensor]]:
    """What may belong to the module's weight, by the last part of its name."""
    tensors, prefix = scope.checkpoint.tensors, f"{scope.prefix}{module}."
    for name in scope.parts(module):
        first = name.partition("_")[0]
        if name not in NOT_OF_THE_WEIGHT and first not in ACTIVATIONS and not name.endswith("_act"):
            yield name, tensors[f"{prefix}{name}"]


def _block(scope: Scope, tensor: Tensor, scale: Tensor) -> tuple[int, int] | None:
    """(rows, columns) that one number multiplies, if the scale's shape says so."""
    if len(tensor.shape) != 2:
        return None
    rows, columns = tensor.shape
    if scale.info.elements == 1:
        return rows, columns
    if scale.shape in ((rows,), (rows, 1)):
        return 1, columns
    for block in _blocks(quantisation(scope)):
        if scale.shape == tuple(-(-n // b) for n, b in zip(tensor.shape, block, strict=True)):
            return block
    return None


def _blocks(config: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """As DeepSeek writes it, or compressed-tensors: [128, 128] or "128x128", or so many columns of a row."""
    groups = config.get("config_groups")
    found = [config.get("weight_block_size")]
    for group in groups.values() if isinstance(groups, dict) else ():
        if isinstance(group, dict) and isinstance(weights := group.get("weights"), dict):
            block = weights.get("block_structure")
            block = [int(n) for n in block.split("x") if n.isdecimal()] if isinstance(block, str) else block
            found += [block, [1, weights.get("group_size")]]
    for block in found:
        if isinstance(block, list) and len(block) == 2 and all(type(b) is int and b > 0 for b in block):
            yield block[0], block[1]
