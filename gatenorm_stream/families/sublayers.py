"""The attention sublayer of one layer: its heads, and the stored tensors that hold them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.families.family import Config, Family
from gatenorm_stream.families.heads import Heads
from gatenorm_stream.families.projections import Latent, Projection, rows, starts
from gatenorm_stream.families.scales import FLOAT8_DTYPES, FLOAT_DTYPES
from gatenorm_stream.families.scope import Scope
from gatenorm_stream.families.sizes import optional_size, size
from gatenorm_stream.families.weights import readable_or_not

BY_LAYER = "scale_attn_by_inverse_layer_idx"
"""Of GPT-2: what goes into the softmax is divided by the layer's number, from 1 on."""

KINDS = ("layer_types", "layers_block_type")
"""Lists of what each layer of a hybrid model has."""


@dataclass(frozen=True)
class Attention:
    """A layer's softmax-attention sublayer. `kv_width` is how many numbers of a token it keeps in the KV cache.

    `gain` multiplies all that its heads' products come to, where that is another number in each layer.
    """

    layer: int
    heads: Heads
    query: Projection
    key: Projection
    kv_width: int
    gain: float = 1.0

    @property
    def projections(self) -> tuple[Projection, Projection]:
        return self.query, self.key

    @cached_property
    def bytes(self) -> int:
        """That must be read to score it."""
        return self.query.bytes + self.key.bytes

    @property
    def unread(self) -> str | None:
        """Why it can't be scored, if it can't."""
        weights = [w for p in self.projections for w in (p.weight, p.latent and p.latent.down) if w]
        return next((w.unread for w in weights if w.unread), None)


def switched_off(config: Config, layer: int) -> bool:
    """Whether config.json gives a layer of a hybrid model another mixer, whatever tensors are there."""
    kinds = next((k for key in KINDS if isinstance(k := config.get(key), list)), [])
    kind = kinds[layer] if layer < len(kinds) else None
    return isinstance(kind, str) and ("attention" not in kind or "linear" in kind)


def read_attention(scope: Scope, family: Family, layer: int) -> Attention:
    """Raises CheckpointError if tensors and config contradict each other."""
    if family.latent:
        return _latent_attention(scope, layer)
    heads = _heads(scope, family)
    query_starts, key_starts = starts(heads, family.packing, family.gated)
    query_rows, key_rows = rows(heads, family.packing, family.gated)
    hidden = size(scope.config, "hidden_size", scope.where)
    query = readable_or_not(scope, family.query, (query_rows, hidden), family.transposed)
    key = query
    if family.packing == "separate":
        key = readable_or_not(scope, family.key, (key_rows, hidden), family.transposed)
    return Attention(
        layer,
        heads,
        Projection(query, query_starts, heads.dim, family.transposed),
        Projection(key, key_starts, heads.dim, family.transposed),
        2 * heads.keys * heads.dim,
        1 / (layer + 1) if scope.config.get(BY_LAYER) is True else 1.0,
    )


def _heads(scope: Scope, family: Family) -> Heads:
    """head_dim is taken from the query projection's shape where the config does not tell it."""
    config, where = scope.config, scope.where
    hidden = size(config, "hidden_size", where)
    queries = size(config, "num_attention_heads", where)
    keys = family.kv_heads or optional_size(config, "num_key_value_heads", where) or queries
    if queries % keys:
        raise CheckpointError(
            f"{where} has {queries} attention heads, not a multiple of its {keys} KV heads; restore it"
        )
    dim = optional_size(config, "head_dim", where)
    if dim is not None:
        return Heads(queries, keys, dim)
    tensor = scope.checkpoint.tensors.get(f"{scope.prefix}{family.query}.weight")
    if tensor and tensor.dtype in (*FLOAT_DTYPES, *FLOAT8_DTYPES):
        what = f"{tensor.name} in {scope.checkpoint.source.title} has shape {list(tensor.shape)}"
        count = tensor.shape[-1 if family.transposed else 0] if tensor.shape else 0
        dim, rest = divmod(count, rows(Heads(queries, keys, 1), family.packing, family.gated)[0])
    else:  # packed, or not there: as the stock classes reckon
        what = f"{where} has hidden_size={hidden}"
        dim, rest = divmod(hidden, queries)
    if rest or not dim:
        raise CheckpointError(
            f"{what}, which {queries} query and {keys} key heads of {where} do not divide; one of them is wrong, "
            "restore it"
        )
    return Heads(queries, keys, dim)


def _latent_attention(scope: Scope, layer: int) -> Attention:
    """DeepSeek's MLA: docs/scoring.md says what its heads are in the hidden state's terms.

    Each head has `plain` rows that make keys of the latent; `value` rows that make values follow.
    """
    keys = ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank")
    queries, plain, rotary, value, rank = (size(scope.config, key, scope.where) for key in keys)
    hidden = size(scope.config, "hidden_size", scope.where)
    query_rank = optional_size(scope.config, "q_lora_rank", scope.where)
    heads, width = Heads(queries, queries, plain + rotary), plain + value
    query_starts = tuple(h * heads.dim for h in range(queries))
    if query_rank is None:
        query = Projection(readable_or_not(scope, "q_proj", (queries * heads.dim, hidden)), query_starts, heads.dim)
    else:
        query = Projection(
            readable_or_not(scope, "q_b_proj", (queries * heads.dim, query_rank)),
            query_starts,
            heads.dim,
            latent=Latent(readable_or_not(scope, "q_a_proj", (query_rank, hidden)), query_rank),
        )
    key = Projection(
        readable_or_not(scope, "kv_b_proj", (queries * width, rank)),
        tuple(h * width for h in range(queries)),
        plain,
        latent=Latent(readable_or_not(scope, "kv_a_proj_with_mqa", (rank + rotary, hidden)), rank, rotary),
    )
    return Attention(layer, heads, query, key, rank + rotary)
