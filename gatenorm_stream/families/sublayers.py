"""The attention sublayer of one layer: its heads, and the stored tensors that hold them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from gatenorm_stream.checkpoint.open import Checkpoint, Tensor
from gatenorm_stream.errors import CheckpointError, UnsupportedModelError
from gatenorm_stream.families.family import Config, Family
from gatenorm_stream.families.projections import Latent, Projection, Weight, rows, starts
from gatenorm_stream.families.sizes import optional_size, size
from gatenorm_stream.heads import Heads

FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")
FLOAT8_DTYPES = ("F8_E4M3", "F8_E5M2")
PACKED = ("qweight", "weight_packed", "weight_blocks")
SCALES = ("weight_scale_inv", "weight_scale")


@dataclass(frozen=True)
class Attention:
    """A layer's softmax-attention sublayer. `kv_width` is how many numbers of a token it keeps in the KV cache."""

    layer: int
    heads: Heads
    query: Projection
    key: Projection
    kv_width: int

    @cached_property
    def bytes(self) -> int:
        """That must be read to score it."""
        return self.query.bytes + self.key.bytes


@dataclass(frozen=True)
class Place:
    """Where attention is looked for: `where` is its config.json, `prefix` stands before its tensors' names."""

    checkpoint: Checkpoint
    config: Config
    where: str
    prefix: str


def read_attention(place: Place, family: Family, layer: int) -> Attention:
    """Raises CheckpointError if tensors and config contradict each other, UnsupportedModelError for packed ones."""
    if family.latent:
        return _latent_attention(place, layer)
    heads = _heads(place, family)
    query_starts, key_starts = starts(heads, family.packing, family.gated)
    query_rows, key_rows = rows(heads, family.packing, family.gated)
    hidden = size(place.config, "hidden_size", place.where)
    query = _weight(place, family.query, (query_rows, hidden), family.transposed)
    key = query
    if family.packing == "separate":
        key = _weight(place, family.key, (key_rows, hidden), family.transposed)
    return Attention(
        layer,
        heads,
        Projection(query, query_starts, heads.dim, family.transposed),
        Projection(key, key_starts, heads.dim, family.transposed),
        2 * heads.keys * heads.dim,
    )


def _heads(place: Place, family: Family) -> Heads:
    """head_dim is taken from the query projection's shape where the config does not tell it."""
    config, where = place.config, place.where
    queries = size(config, "num_attention_heads", where)
    keys = family.kv_heads or optional_size(config, "num_key_value_heads", where) or queries
    if queries % keys:
        raise CheckpointError(
            f"{where} has {queries} attention heads, not a multiple of its {keys} KV heads; restore it"
        )
    dim = optional_size(config, "head_dim", where)
    if dim is None:
        tensor = _tensor(place, family.query)
        stored = tensor.shape[-1 if family.transposed else 0] if tensor.shape else 0
        dim, rest = divmod(stored, rows(Heads(queries, keys, 1), family.packing, family.gated)[0])
        if rest or not dim:
            raise CheckpointError(
                f"{tensor.name} in {place.checkpoint.source.title} has shape {list(tensor.shape)}, which {queries} "
                f"query and {keys} key heads of {where} do not divide; one of them is wrong, restore it"
            )
    return Heads(queries, keys, dim)


def _latent_attention(place: Place, layer: int) -> Attention:
    """DeepSeek's MLA: see docs/scoring.md for what its heads are in the hidden state's terms."""
    config, where = place.config, place.where
    queries, hidden = (size(config, key, where) for key in ("num_attention_heads", "hidden_size"))
    plain, rotary, value = (
        size(config, key, where) for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    )
    rank, query_rank = size(config, "kv_lora_rank", where), optional_size(config, "q_lora_rank", where)
    heads = Heads(queries, queries, plain + rotary)
    query_starts = tuple(h * heads.dim for h in range(queries))
    if query_rank is None:
        query = Projection(_weight(place, "q_proj", (queries * heads.dim, hidden)), query_starts, heads.dim)
    else:
        query = Projection(
            _weight(place, "q_b_proj", (queries * heads.dim, query_rank)),
            query_starts,
            heads.dim,
            latent=Latent(_weight(place, "q_a_proj", (query_rank, hidden))),
        )
    key = Projection(
        _weight(place, "kv_b_proj", (queries * (plain + value), rank)),
        tuple(h * (plain + value) for h in range(queries)),
        plain,
        latent=Latent(_weight(place, "kv_a_proj_with_mqa", (rank + rotary, hidden)), rotary),
    )
    return Attention(layer, heads, query, key, rank + rotary)


def _weight(place: Place, module: str, shape: tuple[int, int], transposed: bool = False) -> Weight:
    """The matrix `shape` (out, in), stored the other way round if `transposed`."""
    tensor, title = _tensor(place, module), place.checkpoint.source.title
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
    return _scaled(place, module, tensor) if tensor.dtype in FLOAT8_DTYPES else Weight(tensor)


def _tensor(place: Place, module: str) -> Tensor:
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


def _scaled(place: Place, module: str, tensor: Tensor) -> Weight:
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
