"""Llama-shaped models in numpy, in float32: weights are read in blocks of rows and never loaded.

Memory holds a widened block a thread and the activations of the tokens: the stream twice, and of what is wider
about `ACTIVATION_BYTES` at once. Where the tokens are too many for that, they go through a sublayer in groups, for
each of which its matrices are read again (of a remote model that is not kept, all go at once). BLAS
should run one thread for each of ours: the command sets OPENBLAS_NUM_THREADS=1 and its like before numpy is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gatenorm_stream.checkpoint.tensors import Tensor
from gatenorm_stream.errors import CheckpointError, UnsupportedModelError
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.unread import UnreadError
from gatenorm_stream.measuring.attention import attend
from gatenorm_stream.measuring.decoder import Settle, Stream, Tokens
from gatenorm_stream.measuring.llama import Attention, Layer, Linear, Llama
from gatenorm_stream.measuring.llama_gguf import read_gguf
from gatenorm_stream.measuring.llama_safetensors import read_safetensors
from gatenorm_stream.measuring.products import Block, Float32Array, Products, blocks, vector
from gatenorm_stream.sources.source import Kind

RowNumbers: TypeAlias = npt.NDArray[np.intp]

ACTIVATION_BYTES = 64 << 20
FEWEST_TOKENS = 256
"""In a group: with fewer, reading the weights again would cost more than multiplying by them."""
LOGITS = 1 << 20
"""Numbers that a thread holds at once."""
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
        if ids[0] < 0 or ids[-1] >= known:
            raise CheckpointError(
                f"{self._llama.source.title} knows {known} tokens, but the text has token {ids[-1]}; it has "
                "another model's tokenizer, restore it"
            )
        found, rows = np.empty((len(ids), self._llama.hidden), np.float32), self._products.reader(table)

        def look_up(number: int) -> None:
            part = slice(number * LOOKED_UP, (number + 1) * LOOKED_UP)
            found[part] = rows(*(table.rows(token, token + 1) for token in ids[part].tolist()))

        _run(self._products.share_out(look_up, -(-len(ids) // LOOKED_UP)))
        return found[places.reshape(tokens.shape)]

    def layer(self, number: int, stream: Stream, idle: npt.NDArray[np.bool_], settle: Settle) -> Stream:
        layer = self._llama.layers[number]
        if layer.attention:
            out = np.zeros(stream.shape, np.float32)
            for rows in self._groups_of_rows(layer.attention, np.flatnonzero(~idle), stream.shape[1]):
                out[rows] = self._attention(layer, layer.attention, stream[rows])
            settle(stream, out)
            out += stream
        else:
            out = stream + vector(layer.constant) if layer.constant else stream.copy()
        tokens = out.reshape(-1, self._llama.hidden)
        following = self._first_blocks(number + 1)
        for group in self._groups_of_tokens(layer, len(tokens)):
            tokens[group] += self._mlp(layer, tokens[group], following)
        return out

    def added(self, number: int, attention: Stream) -> Stream:
        return attention

    def losses(self, stream: Stream, tokens: Tokens) -> npt.NDArray[np.float64]:
        """Raises CheckpointError if one is not finite, or the head has no row for a token."""
        rows, length = tokens.shape
        table = self._llama.head.tensor
        if length > 1 and (largest := tokens[:, 1:].max()) >= table.shape[0]:
            raise CheckpointError(
                f"{table.name} in {self._llama.source.title} has {table.shape[0]} rows, but the text has token "
                f"{largest}; it has another model's tokenizer, restore it"
            )
        x = np.empty((rows, length - 1, self._llama.hidden), np.float32)
        for normed, row in zip(x, stream, strict=True):
            normed[:] = self._normed(row[:-1], self._llama.norm)
        x = x.reshape(-1, self._llama.hidden)
        wanted, head = tokens[:, 1:].reshape(-1), self._products.reader(self._llama.head)
        own = np.empty(len(x), np.float32)
        peak, total = np.full(len(x), -np.inf), np.zeros(len(x))

        def peaks_and_sums(block: Block) -> tuple[Float32Array, npt.NDArray[np.float64]]:
            """Of each token's logits in the block: the largest, and the sum of exp(logit - largest)."""
            matrix = head.between(block.start, block.stop)
            peaks, sums = np.empty(len(x), np.float32), np.empty(len(x))
            for part in _slices(len(x), max(1, LOGITS // len(matrix))):
                logits = np.asarray(x[part] @ matrix.T, np.float32)
                inside = np.flatnonzero((block.start <= wanted[part]) & (wanted[part] < block.stop))
                own[part.start + inside] = logits[inside, wanted[part][inside] - block.start]
                peaks[part] = logits.max(-1)
                logits -= peaks[part, None]
                sums[part] = np.exp(logits, out=logits).sum(-1)
            return peaks, sums

        for peaks, sums in self._products.each(peaks_and_sums, blocks(self._llama.head)):
            higher = np.maximum(peak, peaks)
            total = total * np.exp(peak - higher) + sums * np.exp(peaks - higher)
            peak = higher
        found: npt.NDArray[np.float64] = np.log(total) + peak - own
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

    def _attention(self, layer: Layer, attention: Attention, stream: Stream) -> Stream:
        heads, (rows, length, hidden) = attention.heads, stream.shape
        u = self._normed(stream.reshape(-1, hidden), attention.norm)
        output = blocks(attention.output.weight)
        projected = self._products.apply(u, attention.query, attention.key, attention.value, then=output)
        queries, keys, values = (
            x.reshape(rows, length, count, heads.dim).swapaxes(1, 2)
            for x, count in zip(projected, (heads.queries, heads.keys, heads.keys), strict=True)
        )
        taken = np.empty((rows, length, heads.queries, heads.dim), np.float32)
        rotary, angles = self._llama.rotary, self._llama.rotary.angles(length)

        def take(number: int) -> None:
            row, key = divmod(number, heads.keys)
            group = slice(key * heads.group, (key + 1) * heads.group)
            turned, against = rotary.turned(queries[row, group], angles), rotary.turned(keys[row, key], angles)
            found = attend(turned, against, values[row, key], attention.window)
            taken[row, :, group] = found.swapaxes(0, 1)

        _run(self._products.share_out(take, rows * heads.keys))
        following = blocks(layer.gate.weight, layer.up.weight)
        (out,) = self._products.apply(taken.reshape(rows * length, -1), attention.output, then=following)
        return out.reshape(stream.shape)

    def _mlp(self, layer: Layer, tokens: Float32Array, then: Sequence[Block]) -> Float32Array:
        u = self._normed(tokens, layer.norm)
        inner = np.empty((len(u), layer.gate.outputs), np.float32)
        gate, up = (self._products.reader(linear.weight) for linear in (layer.gate, layer.up))
        gate_bias, up_bias = (vector(linear.bias) if linear.bias else None for linear in (layer.gate, layer.up))

        def gate_and_multiply(block: Block) -> None:
            out = inner[:, block.rows]
            np.matmul(u, gate.between(block.start, block.stop).T, out=out, casting="same_kind")
            if gate_bias is not None:
                out += gate_bias[block.rows]
            out /= 1 + np.exp(-out)
            factor = u @ up.between(block.start, block.stop).T
            if up_bias is not None:
                factor += up_bias[block.rows]
            np.multiply(out, factor, out=out, casting="same_kind")

        down = blocks(layer.down.weight)
        _run(self._products.each(gate_and_multiply, blocks(layer.gate.weight, layer.up.weight), down))
        (out,) = self._products.apply(inner, layer.down, then=then)
        return out

    def _normed(self, x: Float32Array, norm: Tensor) -> Float32Array:
        squares = np.vecdot(x, x)[:, None] / np.float32(x.shape[-1])
        out: Float32Array = x / np.sqrt(squares + np.float32(self._llama.epsilon)) * vector(norm)
        return out

    def _first_blocks(self, number: int) -> Sequence[Block]:
        """What is read first of a layer; of the one behind the last, of the head."""
        if number == self.layers:
            return blocks(self._llama.head)
        layer = self._llama.layers[number]
        if layer.attention:
            return blocks(layer.attention.query.weight)
        return blocks(layer.gate.weight, layer.up.weight)

    def _groups_of_rows(self, attention: Attention, rows: RowNumbers, length: int) -> Iterator[RowNumbers]:
        heads = attention.heads
        wide = 2 * self._llama.hidden + 2 * (heads.queries + heads.keys) * heads.dim
        for group in _slices(len(rows), max(1, self._tokens_at_once(wide, len(rows) * length) // length)):
            yield rows[group]

    def _groups_of_tokens(self, layer: Layer, tokens: int) -> Iterator[slice]:
        yield from _slices(tokens, self._tokens_at_once(2 * self._llama.hidden + layer.gate.outputs, tokens))

    def _tokens_at_once(self, wide: int, tokens: int) -> int:
        if not self._llama.source.keeps:
            return tokens
        return max(FEWEST_TOKENS, ACTIVATION_BYTES // (4 * wide))


def _slices(count: int, step: int) -> Iterator[slice]:
    for start in range(0, count, max(1, step)):
        yield slice(start, min(start + step, count))


def _run(results: Iterator[None]) -> None:
    """Waits for all of them. Raises what any of them raised."""
    for _ in results:
        pass
