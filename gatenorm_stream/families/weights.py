"""Stored matrices of a layer, found by name and checked against what the config calls for."""

from __future__ import annotations

from dataclasses import dataclass

from gatenorm_stream.checkpoint.tensors import Checkpoint, Tensor
from gatenorm_stream.errors import CheckpointError, UnsupportedModelError
from gatenorm_stream.families.family import Config
from gatenorm_stream.families.projections import Weight

FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")
FLOAT8_DTYPES = ("F8_E4M3", "F8_E5M2")
PACKED = ("qweight", "weight_packed", "weight_blocks")
SCALES = ("weight_scale_inv", "weight_scale")


@dataclass(frozen=True)
class Place:
    """Where tensors are looked for: `where` is their config.json, `prefix` stands before their names."""

    checkpoint: Checkpoint
    config: Config
    where: str
    prefix: str


def read_weight(place: Place, module: str, shape: tuple[int, int], transposed: bool = False) -> Weight:
    """The matrix `shape` (out, in), stored the other way round if `transposed`."""
    tensor, title = find_tensor(place, module), place.checkpoint.source.title
    if tensor.dtype not in (*FLOAT_DTYPES, *FLOAT8_DTYPES):
        raise UnsupportedModelError(
            f"{tensor.name} in {title} is stored as {tensor.dtype}; scoring reads "
            f"{', '.join((*FLOAT_DTYPES, *FLOAT8_DTYPES))}: use the unquantised safetensors form of this model"
        )
    stored = shape[::-1] if transposed else shape
    if tensor.shape != stored:
        raise CheckpointError(
            f"{tensor.name} in {title} has shape {list(tensor.shape)}, but config.json calls for "
            f"{list(stored)}; one of them is wrong, restore it"
        )
    return scaled_weight(place, module, tensor) if tensor.dtype in FLOAT8_DTYPES else Weight(tensor)


def find_tensor(place: Place, module: str) -> Tensor:
    tensors, title = place.checkpoint.tensors, place.checkpoint.source.title
    name = f"{place.prefix}{module}.weight"
    if name in tensors:
        return tensors[name]
    if any(f"{place.prefix}{module}.{part}" in tensors for part in PACKED):
        raise UnsupportedModelError(
            f"{title} holds packed, quantised weights ({place.prefix}{module}); "
            "use the unquantised safetensors form of this model"
        )
    raise CheckpointError(
        f"{title} has no {name}, which its config.json calls for; the checkpoint is "
        "incomplete (or attention was pruned before): start from the original model"
    )


def scaled_weight(place: Place, module: str, tensor: Tensor) -> Weight:
    """8-bit numbers with the scale beside them: one for all, one for each row, or one for each block."""
    found = (place.checkpoint.tensors.get(f"{place.prefix}{module}.{name}") for name in SCALES)
    scale = next((t for t in found if t), None)
    if scale is None:
        return Weight(tensor)
    block = _block(place, tensor, scale)
    grid = (1, 1) if scale.info.elements == 1 else scale.shape
    if scale.dtype in FLOAT_DTYPES and block:
        blocks = tuple(-(-n // b) for n, b in zip(tensor.shape, block, strict=True))
        if grid == blocks:
            return Weight(tensor, scale, block)
    raise UnsupportedModelError(
        f"{scale.name} in {place.checkpoint.source.title} ({scale.dtype}, {list(scale.shape)}) is no known kind of "
        f"scale for {tensor.name}, {list(tensor.shape)}; use the unquantised form of this model"
    )


def _block(place: Place, tensor: Tensor, scale: Tensor) -> tuple[int, int] | None:
    rows, columns = tensor.shape
    if scale.info.elements == 1:
        return rows, columns
    if scale.shape == (rows, 1):
        return 1, columns
    quantised = place.checkpoint.config.get("quantization_config")
    block = quantised.get("weight_block_size") if isinstance(quantised, dict) else None
    if isinstance(block, list) and len(block) == 2 and all(type(b) is int and b > 0 for b in block):
        return block[0], block[1]
    return None
