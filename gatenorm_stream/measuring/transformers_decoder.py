"""Any family that transformers has a class for, by its stock layers, one of which has its weights at a time.

Memory holds that layer in float32 beside the activations. Of a mixture of experts it is all experts of the layer,
for a moment twice where transformers fuses what is stored apart: twice 46 GB for DeepSeek V3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gatenorm_stream.errors import UnsupportedModelError
from gatenorm_stream.families.model import Model
from gatenorm_stream.measuring.absent_attention import leave_attention_out
from gatenorm_stream.measuring.decoder import RowNumbers, Settle, Stream, Tokens
from gatenorm_stream.measuring.stock_body import StockBody
from gatenorm_stream.measuring.stock_model import build_stock_model
from gatenorm_stream.measuring.stock_weights import StockWeights
from gatenorm_stream.measuring.token_ids import check_predicted

TOKENS_AT_ONCE = 4096
"""Of all rows together: their activations between two matrices are held at once."""
HEAD_NUMBERS = 1 << 23
"""Numbers of the head that are read at once, and logits that are held at once."""


class TransformersDecoder:
    """The decoder protocol, for a safetensors checkpoint.

    `attention` as `settle` gets it is what the attention module puts out. Where the family has a norm behind it or
    multiplies it, the stream gets `added(number, attention)`.

    Raises UnsupportedModelError if transformers has no class for it or its weights are quantised, CheckpointError
    if weights are missing.
    """

    def __init__(self, model: Model) -> None:
        with torch.no_grad():
            self._stock = stock = build_stock_model(model)
            leave_attention_out(model, stock.layers)
            self._weights = StockWeights(model, stock)
        self._family, self._title = model.family, model.checkpoint.source.title
        self._with_attention = {a.layer for a in model.attention}
        self._body = StockBody(stock)
        for number in self._with_attention:
            attention = self._attention(number)
            attention.forward = partial(_attend, attention.forward, attention)

    @property
    def title(self) -> str:
        return self._title

    @property
    def layers(self) -> int:
        return len(self._stock.layers)

    def embed(self, tokens: Tokens) -> Stream:
        with torch.no_grad():
            used, index = np.unique(tokens, return_inverse=True)
            embedding = self._stock.embedding
            embedding.padding_idx = None
            table, embedding.weight = embedding.weight, _parameter(self._weights.embeddings(used))
            embedded = embedding(torch.from_numpy(index.reshape(tokens.shape)))
            embedding.weight = table
            chunks = _chunks(np.arange(len(tokens)), tokens.shape[1])
            return np.concatenate([self._body.enter(embedded[rows]).numpy() for rows in chunks])

    def layer(
        self, number: int, stream: Stream, idle: npt.NDArray[np.bool_], settle: Settle, onward: RowNumbers
    ) -> Stream:
        with torch.no_grad(), self._weights.layer(number):
            attention = None
            if number in self._with_attention:
                attention = np.zeros_like(stream)
                for rows in _chunks(np.flatnonzero(~idle), stream.shape[1]):
                    attention[rows] = self._until_attention(number, stream[rows])
                settle(stream, attention)
            out = np.empty((len(onward), *stream.shape[1:]), np.float32)
            for chunk in _chunks(np.arange(len(onward)), stream.shape[1]):
                rows = onward[chunk]
                out[chunk] = self._run(number, stream[rows], None if attention is None else attention[rows])
        return out

    def losses(self, stream: Stream, tokens: Tokens) -> npt.NDArray[np.float64]:
        """Raises CheckpointError if the head has no row for a token."""
        with torch.no_grad():
            head = self._weights.head()
            check_predicted(tokens[:, 1:], head.shape[0], head.name, self._title)
            rows, length, _ = stream.shape
            following = torch.from_numpy(tokens[:, 1:])
            hidden = [self._body.leave(torch.from_numpy(row[None]))[:, :-1] for row in stream]
            normaliser = torch.full((rows, length - 1), -torch.inf, dtype=torch.float64)
            wanted = torch.zeros(rows, length - 1, dtype=torch.float64)
            for first, make in self._head_blocks(length):
                for row, states in enumerate(hidden):
                    logits = make(states)[0].double()
                    normaliser[row] = torch.logaddexp(normaliser[row], logits.logsumexp(-1))
                    index = following[row] - first
                    inside = (index >= 0) & (index < logits.shape[-1])
                    found = logits.gather(-1, index.clamp(0, logits.shape[-1] - 1)[:, None])[:, 0]
                    wanted[row] += torch.where(inside, found, 0)
            nats: npt.NDArray[np.float64] = (normaliser - wanted).numpy()
            return nats

    def logits(self, stream: Stream) -> Stream:
        """(rows, length, vocabulary): for small models."""
        with torch.no_grad():
            hidden = self._body.leave(torch.from_numpy(stream))
            blocks = [make(hidden) for _, make in self._head_blocks(stream.shape[1])]
            made: Stream = torch.cat(blocks, dim=-1).numpy()
            return made

    def added(self, number: int, attention: Stream) -> Stream:
        """(rows, length, hidden): what the stream gets when the attention module puts out `attention`.

        Only from within `settle`, while the layer has its weights.
        """
        layer, norm = self._stock.layers[number], self._family.output_norm
        with torch.no_grad():
            out = torch.from_numpy(attention)
            out = getattr(layer, norm)(out) if norm else out
            change: Stream = (out * getattr(layer, "residual_multiplier", 1.0)).numpy()
            return change

    def _attention(self, number: int) -> torch.nn.Module:
        attention: torch.nn.Module = getattr(self._stock.layers[number], self._family.attention)
        return attention

    def _head_blocks(self, length: int) -> Iterator[tuple[int, Callable[[torch.Tensor], torch.Tensor]]]:
        """The first row of each block, and what makes its logits of the states behind the last norm.

        The stock class's own forward does: some families scale or cap logits there.
        """
        owner, body, head = self._stock.owner, self._stock.owner_body, self._stock.head
        table, bias = self._weights.head(), self._weights.head_bias()
        vocabulary, width = table.shape
        step = max(1, HEAD_NUMBERS // max(width, length))
        empty = {name: getattr(head, name) for name in ("weight", "bias")}

        def make(states: torch.Tensor) -> torch.Tensor:
            body.forward = lambda *_, **__: _BodyOutput(states)
            try:
                return owner(inputs_embeds=states, use_cache=False).logits
            finally:
                del body.forward

        for first in range(0, vocabulary, step):
            last = min(first + step, vocabulary)
            head.weight = _parameter(table.rows(first, last))
            if bias is not None:
                head.bias = _parameter(bias[first:last])
            yield first, make
        for name, value in empty.items():
            setattr(head, name, value)

    def _until_attention(self, number: int, stream: Stream) -> torch.Tensor:
        """Runs the layer as far as what attention puts out."""
        try:
            self._run(number, stream, None)
        except _Reached as reached:
            return reached.output
        layer = type(self._stock.layers[number]).__name__
        raise UnsupportedModelError(f"{layer} of transformers does not call its {self._family.attention}")

    def _run(self, number: int, stream: Stream, attention: Stream | None) -> torch.Tensor:
        """The stream behind the layer, with this for what its attention puts out."""
        args, kwargs = self._body.beside(*stream.shape[:2])[number]
        if number in self._with_attention:
            self._attention(number).settled = None if attention is None else torch.from_numpy(attention)
        try:
            out = self._stock.layers[number](torch.from_numpy(stream), *args, **kwargs)
        finally:
            if number in self._with_attention:
                self._attention(number).settled = None
        return out[0] if isinstance(out, tuple) else out


class _BodyOutput:
    """What a stock body puts out, to the class with the head: the states, and nothing beside them."""

    def __init__(self, states: torch.Tensor) -> None:
        self.last_hidden_state = states

    def __getitem__(self, _: int) -> torch.Tensor:
        return self.last_hidden_state

    def __getattr__(self, name: str) -> None:
        return None


class _Reached(Exception):  # noqa: N818, leaves a layer's forward
    def __init__(self, output: torch.Tensor) -> None:
        self.output = output


def _attend(forward: Callable[..., Any], attention: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Stands for an attention module's forward: puts out what it was told to, or else tells what it would."""
    if attention.settled is not None:
        return attention.settled, None
    out = forward(*args, **kwargs)
    raise _Reached(out[0] if isinstance(out, tuple) else out)


def _parameter(numbers: npt.NDArray[np.float32]) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.from_numpy(numbers), requires_grad=False)


def _chunks(rows: npt.NDArray[np.intp], length: int) -> Iterator[npt.NDArray[np.intp]]:
    step = max(1, TOKENS_AT_ONCE // length)
    for first in range(0, len(rows), step):
        yield rows[first : first + step]
