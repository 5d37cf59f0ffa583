"""The attention sublayer of one layer: its heads, and the stored tensors that hold them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.families.family import Family
from gatenorm_stream.families.heads import Heads
from gatenorm_stream.families.projections import Latent, Norm, Pair, Projection, rows, starts
from gatenorm_stream.families.sizes import optional_size, size
from gatenorm_stream.families.weights import Place, find_tensor, read_norm, read_weight


@dataclass(frozen=True)
class Attention:
    """A layer's softmax-attention sublayer. `kv_width` is how many numbers of a token it keeps in the KV cache."""

    layer: int
    heads: Heads
    query: Projection
    key: Projection
    kv_width: int


def read_attention(place: Place, family: Family, layer: int) -> Attention:
    """Raises CheckpointError if tensors and config contradict each other, UnsupportedModelError for packed ones."""
    if family.latent:
        return _latent_attention(place, layer)
    heads = _heads(place, family)
    query_starts, key_starts, _ = starts(heads, family.packing, family.gated)
    query_rows, key_rows = rows(heads, family.packing, family.gated)
    hidden = size(place.config, "hidden_size", place.where)
    query = read_weight(place, family.query, (query_rows, hidden), family.transposed)
    key = query
    if family.packing == "separate":
        key = read_weight(place, family.key, (key_rows, hidden), family.transposed)
    return Attention(
        layer,
        heads,
        Projection(query, query_starts, heads.dim, family.transposed),
        Projection(key, key_starts, heads.dim, family.transposed),
        2 * heads.keys * heads.dim,
    )


def read_value_output(place: Place, family: Family, layer: int) -> Pair:
    """Output and value projections, the norm before attention with the latter. Raises as `read_attention` does."""
    hidden = size(place.config, "hidden_size", place.where)
    if family.latent:
        sizes = _latent_sizes(place)
        heads, value = sizes.heads, _latent_value(place, sizes, hidden)
    else:
        heads = _heads(place, family)
        module, count = (family.value, rows(heads, "separate")[1])
        if family.packing != "separate":
            module, count = family.query, rows(heads, family.packing)[0]
        weight = read_weight(place, module, (count, hidden), family.transposed)
        value = Projection(weight, starts(heads, family.packing)[2], heads.dim, family.transposed)
    output = Projection(
        read_weight(place, family.output, (hidden, heads.queries * value.dim), family.transposed),
        tuple(h * value.dim for h in range(heads.queries)),
        value.dim,
        not family.transposed,
    )
    return Pair(layer, heads, output, replace(value, norm=_norm(place, family, hidden)))


def _norm(place: Place, family: Family, hidden: int) -> Norm | None:
    """The norm before attention; None if there is none, or it has no weight."""
    name = family.input_norm or family.shared_norm
    if name is None or family.norm_weight == "none":
        return None
    beside = replace(place, prefix=place.prefix.removesuffix(f"{family.attention}."))
    return read_norm(beside, name, hidden, 1.0 if family.norm_weight == "less one" else 0.0)


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
        tensor = find_tensor(place, family.query)
        stored = tensor.shape[-1 if family.transposed else 0] if tensor.shape else 0
        dim, rest = divmod(stored, rows(Heads(queries, keys, 1), family.packing, family.gated)[0])
        if rest or not dim:
            raise CheckpointError(
                f"{tensor.name} in {place.checkpoint.source.title} has shape {list(tensor.shape)}, which {queries} "
                f"query and {keys} key heads of {where} do not divide; one of them is wrong, restore it"
            )
    return Heads(queries, keys, dim)


@dataclass(frozen=True)
class _LatentSizes:
    """Of the heads of DeepSeek's MLA: docs/scoring.md says what these are in the hidden state's terms."""

    heads: Heads
    plain: int
    rotary: int
    value: int
    rank: int


def _latent_sizes(place: Place) -> _LatentSizes:
    keys = ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank")
    queries, plain, rotary, value, rank = (size(place.config, key, place.where) for key in keys)
    return _LatentSizes(Heads(queries, queries, plain + rotary), plain, rotary, value, rank)


def _latent_key(place: Place, sizes: _LatentSizes, hidden: int) -> Projection:
    """Each head has `plain` rows that make keys of the latent; `value` rows that make values follow."""
    queries, width = sizes.heads.queries, sizes.plain + sizes.value
    return Projection(
        read_weight(place, "kv_b_proj", (queries * width, sizes.rank)),
        tuple(h * width for h in range(queries)),
        sizes.plain,
        latent=Latent(
            read_weight(place, "kv_a_proj_with_mqa", (sizes.rank + sizes.rotary, hidden)), sizes.rank, sizes.rotary
        ),
    )


def _latent_value(place: Place, sizes: _LatentSizes, hidden: int) -> Projection:
    key = _latent_key(place, sizes, hidden)
    assert key.latent
    starts = tuple(start + sizes.plain for start in key.starts)
    return Projection(key.weight, starts, sizes.value, latent=replace(key.latent, shared=0))


def _latent_attention(place: Place, layer: int) -> Attention:
    hidden = size(place.config, "hidden_size", place.where)
    query_rank = optional_size(place.config, "q_lora_rank", place.where)
    sizes = _latent_sizes(place)
    heads, queries = sizes.heads, sizes.heads.queries
    query_starts = tuple(h * heads.dim for h in range(queries))
    if query_rank is None:
        query = Projection(read_weight(place, "q_proj", (queries * heads.dim, hidden)), query_starts, heads.dim)
    else:
        query = Projection(
            read_weight(place, "q_b_proj", (queries * heads.dim, query_rank)),
            query_starts,
            heads.dim,
            latent=Latent(read_weight(place, "q_a_proj", (query_rank, hidden)), query_rank),
        )
    return Attention(layer, heads, query, _latent_key(place, sizes, hidden), sizes.rank + sizes.rotary)
