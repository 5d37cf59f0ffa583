"""Weights that are packed: what quantises them, told by names and config. Their numbers are not read here.

Their layers can go all the same, named by --layers or a plan: the other layers stay as they are, byte for byte.
"""

from __future__ import annotations

from gatenorm_stream.checkpoint.tensors import Tensor
from gatenorm_stream.errors import UnsupportedModelError
from gatenorm_stream.families.scales import MODELOPT, quantisation
from gatenorm_stream.families.scope import Scope
from gatenorm_stream.families.unread import UnreadError

PARTS = {
    "qweight": "GPTQ or AWQ",
    "weight_packed": "compressed-tensors",
    "weight_blocks": "MXFP4",
    "_weight_qdata": "torchao",
    "_data": "quanto",
    "q_weight": "EXL2",
    "trellis": "EXL3",
    "W_q": "HQQ",
    "codes": "AQLM",
    "Qidxs": "QuIP#",
    "indices": "VPTQ",
    "B": "Marlin",
}
"""What stands in the place of a weight, and what puts it there."""
NAMES = {
    "gptq": "GPTQ",
    "awq": "AWQ",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "modelopt": "ModelOpt",
    "exl2": "EXL2",
    "exl3": "EXL3",
    "hqq": "HQQ",
    "torchao": "torchao",
    "mxfp4": "MXFP4",
    "mlx": "MLX",
}


def packed_tensor(scope: Scope, module: str) -> Tensor | None:
    """The one that stands in the place of the module's weight, or the largest of those that do."""
    prefix = f"{scope.prefix}{module}."
    known = (f"{prefix}{part}" for part in PARTS)
    names = [n for n in known if n in scope.checkpoint.tensors]
    names = names or [n for n in scope.checkpoint.tensors if n.startswith(prefix) and n != f"{prefix}bias"]
    tensors = [scope.checkpoint.tensors[n] for n in names]
    return max(tensors, key=lambda t: len(t.info.data), default=None)


def method(scope: Scope, module: str = "", tensor: Tensor | None = None) -> str:
    """What the weights were quantised by, as people call it; empty if nothing tells."""
    named = quantisation(scope).get("quant_method", "")
    if named in NAMES:
        return NAMES[named]
    if tensor and (found := PARTS.get(tensor.name.removeprefix(f"{scope.prefix}{module}."))):
        return found
    return named or ("ModelOpt" if MODELOPT in scope.checkpoint.source.names() else "")


def refused(scope: Scope, module: str, tensor: Tensor) -> UnsupportedModelError:
    """Why the numbers of `tensor`, which is the module's weight or in its place, are not read."""
    title = scope.checkpoint.source.title
    by = method(scope, module, tensor)
    return UnreadError(
        f"{title} holds packed, quantised weights{f' of {by}' if by else ''}, which are not read here: "
        f"{tensor.name} is stored as {tensor.dtype}"
    )
