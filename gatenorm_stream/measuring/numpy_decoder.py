"""Llama-shaped models in numpy, in float32: weights are read in blocks of rows and never loaded.

Memory holds a widened block a thread and the activations of the tokens: the stream twice, and of what is wider
about `ACTIVATION_BYTES` at once. Where the tokens are too many for that, they go through a sublayer in groups, for
each of which its matrices are read again (of a remote model that is not kept, all go at once). BLAS
should run one thread for each of ours: the command sets OPENBLAS_NUM_THREADS=1 and its like before numpy is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from gatenorm_stream.checkpoint.tensors import Tensor
from gatenorm_stream.errors import CheckpointError, UnsupportedModelError
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.projections import Weight
from gatenorm_stream.families.unread import UnreadError
from gatenorm_stream.measuring.attention import attend
from gatenorm_stream.measuring.decoder import RowNumbers, Settle, Stream, Tokens
from gatenorm_stream.measuring.llama import Attention, Layer, Linear, Llama
from gatenorm_stream.measuring.llama_gguf import read_gguf
from gatenorm_stream.measuring.llama_safetensors import read_safetensors
from gatenorm_stream.measuring.products import Block, Float32Array, Matrices, Products, slices, tiles, vector
from gatenorm_stream.measuring.token_ids import check_embedded, check_predicted
from gatenorm_stream.sources.source import Kind

ACTIVATION_BYTES = 64 << 20
FEWEST_TOKENS = 256
"""In a group: with fewer, reading the weights again would cost more than multiplying by them."""
LOGITS = 1 << 19
"""Numbers that a thread holds at once, while they stay in the cache."""
LOOKED_UP = 64
"""Rows of the embedding that a thread reads at once."""


def read_llama(model: Model) -> Llama:
    """From headers alone. Raises UnsupportedModelError for what is not run here, CheckpointError for damage."""
    if model.unread:
        raise UnreadError(model.unread)
    return read_gguf(model) if model.checkpoint.kind is Kind.GGUF else read_safetensors(model)


def numpy_obstacle(model: Model) -> str | None:
    """Why numpy does not run the model, in one line; None if it does. Raises CheckpointError for damage."""
    try:
        read_llama(model)
    except UnsupportedModelError as error:
        return str(error)
    return None


@contextmanager
def numpy_decoder(model: Model, *, threads: int | None = None) -> Iterator[NumpyDecoder]:
    """Raises as `read_llama` does."""
    llama = read_llama(model)
    with Products(llama.source, threads) as products:
        yield NumpyDecoder(llama, products)


class NumpyDecoder:
    def __init__(self, llama: Llama, products: Products) -> None:
        self._llama = llama
        self._products = products

    @property
    def layers(self) -> int:
        return len(self._llama.layers)

    def embed(self, tokens: Tokens) -> Stream:
        """Raises CheckpointError for a token that the model does not know."""
        table, known = self._llama.embedding, self._llama.embedding.tensor.shape[0]
        ids, places = np.unique(tokens, return_inverse=True)
        check_embedded(ids, known, self._llama.source.title)
        found, rows = np.empty((len(ids), self._llama.hidden), np.float32), self._products.reader(table)

        def look_up(part: slice) -> None:
            found[part] = rows(*(table.rows(token, token + 1) for token in ids[part].tolist()))

        self._products.share_out(look_up, slices(len(ids), LOOKED_UP))
        return found[places.reshape(tokens.shape)]

    def layer(
        self, number: int, stream: Stream, idle: npt.NDArray[np.bool_], settle: Settle, onward: RowNumbers
    ) -> Stream:
        layer = self._llama.layers[number]
        if layer.attention:
            out = np.zeros(stream.shape, np.float32)
            for rows in self._groups_of_rows(layer.attention, np.flatnonzero(~idle), stream.shape[1]):
                out[rows] = self._attention(layer, layer.attention, stream, rows)
            settle(stream, out)
            self._products.share_out(lambda row: np.add(out[row], stream[row], out=out[row]), range(len(out)))
        else:
            out = stream + vector(layer.constant) if layer.constant else stream.copy()
        for place, row in enumerate(onward):
            if place != row:
                out[place] = out[row]
        out = out[: len(onward)]
        tokens = out.reshape(-1, self._llama.hidden)
        following = self._first_weights(number + 1)
        for group in self._groups_of_tokens(layer, len(tokens)):
            self._mlp(layer, tokens[group], following)
        return out

    def added(self, number: int, attention: Stream) -> Stream:
        return attention

    def losses(self, stream: Stream, tokens: Tokens) -> npt.NDArray[np.float64]:
        """Raises CheckpointError if one is not finite, or the head has no row for a token."""
        rows, length = tokens.shape
        table = self._llama.head.tensor
        check_predicted(tokens[:, 1:], table.shape[0], table.name, self._llama.source.title)
        x = np.empty((rows, length - 1, self._llama.hidden), np.float32)
        self._products.share_out(lambda row: self._normed(stream[row, :-1], self._llama.norm, x[row]), range(rows))
        x = x.reshape(-1, self._llama.hidden)
        wanted, own = tokens[:, 1:].reshape(-1), np.empty(len(x), np.float32)
        peak = np.full(len(x), -np.inf, np.float32)
        total: npt.NDArray[np.float64] = np.zeros(len(x))
        seen: dict[tuple[int, int], tuple[slice, Float32Array, Float32Array]] = {}

        def peaks_and_sums(block: Block, matrices: Matrices, tile: slice) -> None:
            """Of each token's logits in the block: the largest, and the sum of exp(logit - largest)."""
            for part in slices(block.stop - block.start, LOGITS // (tile.stop - tile.start)):
                first = block.start + part.start
                logits = np.asarray(x[tile] @ matrices[0][part].T, np.float32)
                inside = np.flatnonzero((first <= wanted[tile]) & (wanted[tile] < block.start + part.stop))
                own[tile.start + inside] = logits[inside, wanted[tile][inside] - first]
                peaks = logits.max(-1)
                logits -= peaks[:, None]
                seen[first, tile.start] = tile, peaks, np.exp(logits, out=logits).sum(-1)

        for _ in self._products.multiply(peaks_and_sums, len(x), self._llama.head):
            for _, (tile, peaks, sums) in sorted(seen.items()):
                higher = np.maximum(peak[tile], peaks)
                total[tile] = total[tile] * np.exp(peak[tile] - higher) + sums * np.exp(peaks - higher)
                peak[tile] = higher
            seen.clear()
        found: npt.NDArray[np.float64] = np.log(total) + peak.astype(np.float64) - own
        if not np.isfinite(found).all():
            raise CheckpointError(
                f"the loss of {self._llama.source.title} is no number: its weights hold inf or nan, or what they "
                "give leaves the range of float32; restore the checkpoint"
            )
        return found.reshape(rows, length - 1)

    def logits(self, stream: Stream) -> npt.NDArray[np.float32]:
        """(rows, length, vocabulary), all at once: for small models and few tokens."""
        x = self._normed(stream.reshape(-1, self._llama.hidden), self._llama.norm)
        (out,) = self._products.apply(x, Linear(self._llama.head))
        return out.reshape(*stream.shape[:2], -1)

    def _attention(self, layer: Layer, attention: Attention, stream: Stream, chosen: RowNumbers) -> Stream:
        """What it puts out at those rows of the stream."""
        heads, (_, length, hidden) = attention.heads, stream.shape
        rows = len(chosen)
        u = np.empty((rows, length, hidden), np.float32)
        self._products.share_out(lambda row: self._normed(stream[chosen[row]], attention.norm, u[row]), range(rows))
        linears = attention.query, attention.key, attention.value
        projected = self._products.apply(u.reshape(-1, hidden), *linears, then=[attention.output.weight])
        queries, keys, values = (
            x.reshape(rows, length, count, heads.dim).swapaxes(1, 2)
            for x, count in zip(projected, (heads.queries, heads.keys, heads.keys), strict=True)
        )
        taken = np.empty((rows, length, heads.queries, heads.dim), np.float32)
        rotary, turns = self._llama.rotary, self._llama.rotary.turns(length)

        def take(number: int) -> None:
            row, key = divmod(number, heads.keys)
            group = slice(key * heads.group, (key + 1) * heads.group)
            turned, against = rotary.turned(queries[row, group], turns), rotary.turned(keys[row, key], turns)
            found = attend(turned, against, values[row, key], attention.window)
            taken[row, :, group] = found.swapaxes(0, 1)

        self._products.share_out(take, range(rows * heads.keys))
        following = layer.gate.weight, layer.up.weight
        (out,) = self._products.apply(taken.reshape(rows * length, -1), attention.output, then=following)
        return out.reshape(rows, length, hidden)

    def _mlp(self, layer: Layer, tokens: Float32Array, then: Sequence[Weight]) -> None:
        """Adds what it puts out to the tokens."""
        u = np.empty_like(tokens)
        self._products.share_out(lambda tile: self._normed(tokens[tile], layer.norm, u[tile]), tiles(len(tokens)))
        inner = np.empty((len(u), layer.gate.outputs), np.float32)
        gate_bias, up_bias, down_bias = (
            vector(linear.bias) if linear.bias else None for linear in (layer.gate, layer.up, layer.down)
        )

        def gate_and_multiply(block: Block, matrices: Matrices, tile: slice) -> None:
            gate, factor = np.asarray(u[tile] @ matrices[0].T, np.float32), inner[tile, block.rows]
            np.matmul(u[tile], matrices[1].T, out=factor, casting="same_kind")
            if gate_bias is not None:
                gate += gate_bias[block.rows]
            if up_bias is not None:
                factor += up_bias[block.rows]
            factor *= gate
            np.exp(np.negative(gate, out=gate), out=gate)
            gate += 1
            factor /= gate

        def add(block: Block, matrices: Matrices, tile: slice) -> None:
            out = np.asarray(inner[tile] @ matrices[0].T, np.float32)
            if down_bias is not None:
                out += down_bias[block.rows]
            tokens[tile, block.rows] += out

        gate, up, down = (linear.weight for linear in (layer.gate, layer.up, layer.down))
        _run(self._products.multiply(gate_and_multiply, len(u), gate, up, then=[down]))
        _run(self._products.multiply(add, len(u), down, then=then))

    def _normed(self, x: Float32Array, norm: Tensor, out: Float32Array | None = None) -> Float32Array:
        squares = np.vecdot(x, x)[..., None] / np.float32(x.shape[-1])
        out = np.divide(x, np.sqrt(squares + np.float32(self._llama.epsilon)), out=out)
        out *= vector(norm)
        return out

    def _first_weights(self, number: int) -> Sequence[Weight]:
        """What is read first of a layer; of the one behind the last, of the head."""
        if number == self.layers:
            return [self._llama.head]
        layer = self._llama.layers[number]
        return [layer.attention.query.weight] if layer.attention else [layer.gate.weight, layer.up.weight]

    def _groups_of_rows(self, attention: Attention, rows: RowNumbers, length: int) -> Iterator[RowNumbers]:
        heads = attention.heads
        wide = 2 * self._llama.hidden + 2 * (heads.queries + heads.keys) * heads.dim
        for group in slices(len(rows), self._tokens_at_once(wide, len(rows) * length) // length):
            yield rows[group]

    def _groups_of_tokens(self, layer: Layer, tokens: int) -> list[slice]:
        return slices(tokens, self._tokens_at_once(self._llama.hidden + layer.gate.outputs, tokens))

    def _tokens_at_once(self, wide: int, tokens: int) -> int:
        if not self._llama.source.keeps:
            return tokens
        return max(FEWEST_TOKENS, ACTIVATION_BYTES // (4 * wide))


def _run(stretches: Iterator[Sequence[Block]]) -> None:
    """Waits for all of them. Raises what any of them raised."""
    for _ in stretches:
        pass
