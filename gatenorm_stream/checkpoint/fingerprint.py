"""What tells one model's weights from another's of the same shape, without reading them all."""

from __future__ import annotations

from blake3 import blake3

from gatenorm_stream.checkpoint.tensors import Checkpoint
from gatenorm_stream.sources.ranges import ByteRange

SAMPLE = 64
"""Bytes from the middle of each tensor."""


def fingerprint(checkpoint: Checkpoint) -> str:
    """BLAKE3 of the name, dtype, shape and a sample of each tensor. However they lie in files, it is the same.

    One short read a tensor: for local models, and remote ones whose weights are kept. Raises CheckpointError.
    """
    digest = blake3()
    for name, tensor in sorted(checkpoint.tensors.items()):
        whole = tensor.range
        start = (whole.start + whole.stop - min(len(whole), SAMPLE)) // 2
        sample = tensor.shard.file.read(ByteRange(start, start + min(len(whole), SAMPLE)))
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(sample)
    return digest.hexdigest()
