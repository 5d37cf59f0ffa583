"""Llama-shaped models in numpy, in float32: weights are read in blocks of rows and never loaded.

Memory holds a widened block a thread and the activations of the tokens: the stream twice, and of what is wider
about `ACTIVATION_BYTES` at once. Where the tokens are too many for that, they go through a sublayer in groups, for
each of which its matrices are read again (of a remote model that is not kept, all go at once). BLAS
should run one thread for each of ours: the command sets OPENBLAS_NUM_THREADS=1 and its like before numpy is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from gatenorm_stream.errors import UnsupportedModelError
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.rows import Room
from gatenorm_stream.families.unread import UnreadError
from gatenorm_stream.measuring.attention import attend
from gatenorm_stream.measuring.decoder import RowNumbers, Settle, Stream, Tokens
from gatenorm_stream.measuring.llama import Attention, Layer, Linear, Llama
from gatenorm_stream.measuring.llama_gguf import read_gguf
from gatenorm_stream.measuring.llama_safetensors import read_safetensors
from gatenorm_stream.measuring.memory import MOST_BYTES
from gatenorm_stream.measuring.products import Block, Float32Array, Products, below, beside, slices, tiles, vector
from gatenorm_stream.measuring.rotary import Turns
from gatenorm_stream.measuring.token_ids import check_embedded, check_predicted
from gatenorm_stream.sources.source import Kind

ACTIVATION_BYTES = 64 << 20
FEWEST_TOKENS = 256
"""In a group: with fewer, reading the weights again would cost more than multiplying by them."""
LOGITS = 1 << 20
"""Numbers that a thread holds at once."""
IN_CACHE = 1 << 16
"""Numbers that a thread takes through several steps at once, so that they stay in its cache."""
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
        self._within, self._put_out = Room(), Room()
        self._turns_of: dict[int, Turns] = {}

    @property
    def title(self) -> str:
        return self._llama.source.title

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
            out = _array(self._put_out, *stream.shape)
            out[idle] = 0
            for rows in self._groups_of_rows(layer.attention, np.flatnonzero(~idle), stream.shape[1]):
                self._attention(layer, layer.attention, stream, rows, out)
            settle(stream, out)
            self._products.share_out(lambda row: np.add(stream[row], out[row], out=stream[row]), onward.tolist())
        elif layer.constant:
            stream += vector(layer.constant)
        for place, row in enumerate(onward):
            if place != row:
                stream[place] = stream[row]
        stream = stream[: len(onward)]
        tokens = stream.reshape(-1, self._llama.hidden)
        for group in self._groups_of_tokens(layer, len(tokens)):
            self._mlp(layer, tokens[group], self._first_blocks(number + 1, len(tokens)))
        return stream

    def added(self, number: int, attention: Stream) -> Stream:
        return attention

    def losses(self, stream: Stream, tokens: Tokens) -> npt.NDArray[np.float64]:
        """Raises CheckpointError if the head has no row for a token."""
        rows, length = tokens.shape
        table = self._llama.head.tensor
        check_predicted(tokens[:, 1:], table.shape[0], table.name, self._llama.source.title)
        x = np.empty((rows, length - 1, self._llama.hidden), np.float32)
        norm = vector(self._llama.norm)
        self._products.share_out(lambda row: self._norm(stream[row, :-1], norm, x[row]), range(rows))
        x = x.reshape(-1, self._llama.hidden)
        wanted, own = tokens[:, 1:].reshape(-1), np.empty(len(x), np.float32)
        peak = np.full(len(x), -np.inf, np.float32)
        total: npt.NDArray[np.float64] = np.zeros(len(x))
        seen: dict[tuple[int, int], tuple[slice, Float32Array, Float32Array]] = {}

        def peaks_and_sums(block: Block, matrix: Float32Array, tile: slice) -> None:
            """Of each token's logits in the block: the largest, and the sum of exp(logit - largest)."""
            ids = wanted[tile]
            for part in slices(block.count, LOGITS // len(ids)):
                first, last = block.start + part.start, block.start + part.stop
                logits = self._products.array(len(ids), last - first)
                np.matmul(x[tile], matrix[part].T, out=logits)
                inside = np.flatnonzero((first <= ids) & (ids < last))
                own[tile.start + inside] = logits[inside, ids[inside] - first]
                peaks, sums = np.empty((2, len(ids)), np.float32)
                for piece in slices(len(ids), IN_CACHE // (last - first)):
                    numbers = logits[piece]
                    numbers.max(-1, out=peaks[piece])
                    numbers -= peaks[piece, None]
                    np.exp(numbers, out=numbers).sum(-1, out=sums[piece])
                seen[first, tile.start] = tile, peaks, sums

        for _ in self._products.multiply(peaks_and_sums, len(x), below(len(x), self._llama.head)):
            for _, (tile, peaks, sums) in sorted(seen.items()):
                higher = np.maximum(peak[tile], peaks)
                total[tile] = total[tile] * np.exp(peak[tile] - higher) + sums * np.exp(peaks - higher)
                peak[tile] = higher
            seen.clear()
        found: npt.NDArray[np.float64] = np.log(total) + peak.astype(np.float64) - own
        return found.reshape(rows, length - 1)

    def logits(self, stream: Stream) -> npt.NDArray[np.float32]:
        """(rows, length, vocabulary), all at once: for small models and few tokens."""
        x = stream.reshape(-1, self._llama.hidden)
        x = self._norm(x, vector(self._llama.norm), np.empty_like(x))
        head = Linear(self._llama.head)
        out = self._products.apply(x, np.empty((len(x), head.outputs), np.float32), head)
        return out.reshape(*stream.shape[:2], -1)

    def _attention(
        self, layer: Layer, attention: Attention, stream: Stream, chosen: RowNumbers, out: Stream
    ) -> None:
        """Fills those rows of `out` with what it puts out at those of the stream."""
        heads, (_, length, hidden), rows = attention.heads, stream.shape, len(chosen)
        tokens, norm = rows * length, vector(attention.norm)
        u, projected, taken = self._scratch(
            (tokens, hidden),
            (tokens, heads.queries + 2 * heads.keys, heads.dim),
            (tokens, heads.queries, heads.dim),
        )
        by_row = u.reshape(rows, length, hidden)
        self._products.share_out(lambda row: self._norm(stream[chosen[row]], norm, by_row[row]), range(rows))
        linears, last = (attention.query, attention.key, attention.value), below(tokens, attention.output.weight)
        self._products.apply(u, projected.reshape(tokens, -1), *linears, then=last)
        rotary, turns = self._llama.rotary, self._turns(length)
        turns_of_queries = np.tile(turns * np.float32(heads.dim**-0.5), heads.group)

        def take(number: int) -> None:
            row, key = divmod(number, heads.keys)
            own, group = slice(row * length, (row + 1) * length), slice(key * heads.group, (key + 1) * heads.group)
            of_row, key = projected[own], heads.queries + key
            queries = rotary.turned(of_row[:, group], turns_of_queries)
            keys = rotary.turned(of_row[:, key : key + 1], turns)[:, 0]
            attend(queries, keys, of_row[:, heads.keys + key], taken[own, group], attention.window)

        self._products.share_out(take, range(rows * heads.keys))
        following = beside(tokens, layer.gate.weight, layer.up.weight)
        self._products.apply(taken.reshape(tokens, -1), u, attention.output, then=following)
        self._products.share_out(lambda row: np.copyto(out[chosen[row]], by_row[row]), range(rows))

    def _mlp(self, layer: Layer, tokens: Float32Array, then: Sequence[Block]) -> None:
        """Adds what it puts out to the tokens."""
        count, norm = len(tokens), vector(layer.norm)
        u, inner = self._scratch(tokens.shape, (count, layer.gate.outputs))
        self._products.share_out(lambda tile: self._norm(tokens[tile], norm, u[tile]), tiles(count))
        gate_bias, up_bias, down_bias = (
            vector(linear.bias) if linear.bias else None for linear in (layer.gate, layer.up, layer.down)
        )

        def gate_and_multiply(block: Block, matrix: Float32Array, tile: slice) -> None:
            (_, start, stop), _ = block.parts
            both = self._products.array(tile.stop - tile.start, block.count)
            np.matmul(u[tile], matrix.T, out=both)
            for part in slices(len(both), IN_CACHE // (stop - start)):
                gate, up = both[part, : stop - start], both[part, stop - start :]
                if gate_bias is not None:
                    gate += gate_bias[start:stop]
                if up_bias is not None:
                    up += up_bias[start:stop]
                below_it = np.negative(gate)
                np.exp(below_it, out=below_it)
                below_it += 1
                gate /= below_it
                np.multiply(gate, up, out=inner[tile][part, start:stop])

        def add(block: Block, matrix: Float32Array, tile: slice) -> None:
            out = self._products.array(tile.stop - tile.start, block.count)
            np.matmul(inner[tile], matrix.T, out=out)
            if down_bias is not None:
                out += down_bias[block.rows]
            tokens[tile, block.rows] += out

        last = below(count, layer.down.weight)
        pairs = beside(count, layer.gate.weight, layer.up.weight)
        _run(self._products.multiply(gate_and_multiply, count, pairs, last))
        _run(self._products.multiply(add, count, last, then))

    def _norm(self, x: Float32Array, weight: Float32Array, out: Float32Array) -> Float32Array:
        squares = np.vecdot(x, x)[..., None] / np.float32(x.shape[-1])
        np.divide(x, np.sqrt(squares + np.float32(self._llama.epsilon)), out=out)
        out *= weight
        return out

    def _turns(self, length: int) -> Turns:
        if length not in self._turns_of:
            self._turns_of = {length: self._llama.rotary.turns(length)}
        return self._turns_of[length]

    def _scratch(self, *shapes: tuple[int, ...]) -> list[Float32Array]:
        """Arrays of no particular numbers, in memory that the next call uses again."""
        ends = [0, *accumulate(math.prod(shape) for shape in shapes)]
        whole = _array(self._within, ends[-1])
        return [
            whole[start:stop].reshape(shape) for (start, stop), shape in zip(pairwise(ends), shapes, strict=True)
        ]

    def _first_blocks(self, number: int, tokens: int) -> Sequence[Block]:
        """What is read first of a layer; of the one behind the last, of the head."""
        if number == self.layers:
            return below(tokens, self._llama.head)
        layer = self._llama.layers[number]
        if layer.attention:
            attention = layer.attention
            return below(tokens, attention.query.weight, attention.key.weight, attention.value.weight)
        return beside(tokens, layer.gate.weight, layer.up.weight)

    def _groups_of_rows(self, attention: Attention, rows: RowNumbers, length: int) -> Iterator[RowNumbers]:
        heads = attention.heads
        wide = self._llama.hidden + 2 * (heads.queries + heads.keys) * heads.dim
        for group in slices(len(rows), self._tokens_at_once(wide, len(rows) * length) // length):
            yield rows[group]

    def _groups_of_tokens(self, layer: Layer, tokens: int) -> list[slice]:
        return slices(tokens, self._tokens_at_once(self._llama.hidden + layer.gate.outputs, tokens))

    def _tokens_at_once(self, wide: int, tokens: int) -> int:
        if not self._llama.source.keeps:
            return tokens
        return max(min(FEWEST_TOKENS, MOST_BYTES // (16 * wide)), ACTIVATION_BYTES // (4 * wide), 1)


def _array(room: Room, *shape: int) -> Float32Array:
    return room.take(4 * math.prod(shape)).view(np.float32).reshape(shape)


def _run(stretches: Iterator[Sequence[Block]]) -> None:
    """Waits for all of them. Raises what any of them raised."""
    for _ in stretches:
        pass
