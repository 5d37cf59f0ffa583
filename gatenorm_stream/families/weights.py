"""Stored matrices of a layer, found by name and checked against what the config calls for."""

from __future__ import annotations

from gatenorm_stream.checkpoint.tensors import Tensor
from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.families.packed import packed_tensor, refused
from gatenorm_stream.families.projections import Weight
from gatenorm_stream.families.scales import FLOAT8_DTYPES, FLOAT_DTYPES, check_unscaled, scaled
from gatenorm_stream.families.scope import Scope
from gatenorm_stream.families.unread import UnreadError


def read_weight(scope: Scope, module: str, shape: tuple[int, int], transposed: bool = False) -> Weight:
    """The matrix `shape` (out, in), stored the other way round if `transposed`.

    Raises UnreadError if its numbers are not read here, CheckpointError if it is not what config.json says.
    """
    tensor, title = find_tensor(scope, module), scope.checkpoint.source.title
    if tensor.dtype not in (*FLOAT_DTYPES, *FLOAT8_DTYPES):
        raise refused(scope, module, tensor)
    expected = shape[::-1] if transposed else shape
    if tensor.shape != expected:
        raise CheckpointError(
            f"{tensor.name} in {title} has shape {list(tensor.shape)}, but config.json calls for "
            f"{list(expected)}; one of them is wrong, restore it"
        )
    if tensor.dtype in FLOAT8_DTYPES:
        if transposed:
            raise UnreadError(f"{tensor.name} in {title} is {tensor.dtype} with heads in its columns")
        return scaled(scope, module, tensor)
    check_unscaled(scope, module, tensor)
    return Weight(tensor)


def readable_or_not(scope: Scope, module: str, shape: tuple[int, int], transposed: bool = False) -> Weight:
    """As `read_weight`, but a weight whose numbers are not read says why: its layer can go all the same."""
    try:
        return read_weight(scope, module, shape, transposed)
    except UnreadError as error:
        tensor = scope.checkpoint.tensors.get(f"{scope.prefix}{module}.weight") or packed_tensor(scope, module)
        if tensor is None:
            raise
        return Weight(tensor, unread=error.why)


def find_tensor(scope: Scope, module: str) -> Tensor:
    """Its weight, as the stock class names it. Raises UnreadError if it is packed, CheckpointError."""
    tensors, title = scope.checkpoint.tensors, scope.checkpoint.source.title
    name = f"{scope.prefix}{module}.weight"
    if name in tensors:
        return tensors[name]
    if tensor := packed_tensor(scope, module):
        raise refused(scope, module, tensor)
    raise CheckpointError(
        f"{title} has no {name}, which its config.json calls for; the checkpoint is "
        "incomplete (or attention was pruned before): start from the original model"
    )
