"""What a stock body does around its layers: before the first, after the last, and what it gives each of them."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias

import torch

from gatenorm_stream.measuring.stock_model import StockModel

Given: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""What a layer gets beside the stream: positional and keyword arguments."""


class StockBody:
    """The stock body's own forward, while its layers let the stream pass: nothing of it is done again here."""

    def __init__(self, stock: StockModel) -> None:
        self._stock = stock
        self._given: dict[tuple[int, int], list[Given]] = {}
        self._in_tuple = False

    def beside(self, rows: int, length: int) -> list[Given]:
        """For each layer: masks, rotary embeddings and the like, for this many rows that start at position 0."""
        if (rows, length) not in self._given:
            width = self._stock.model.config.get_text_config().hidden_size
            self._run(torch.zeros(rows, length, width))
        return self._given[rows, length]

    def enter(self, embedded: torch.Tensor) -> torch.Tensor:
        """What the first layer gets: some families scale embeddings, or add positions."""
        return self._run(embedded)[0]

    def leave(self, stream: torch.Tensor) -> torch.Tensor:
        """What the body puts out when this is the stream behind its last layer."""
        return self._run(stream, stream)[1]

    def _run(self, embedded: torch.Tensor, behind: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """What the first layer gets, and what the body puts out when the last layer puts out `behind`."""
        try:
            return self._run_once(embedded, behind)
        except _InTuple:
            self._in_tuple = True
            return self._run_once(embedded, behind)

    def _run_once(self, embedded: torch.Tensor, behind: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        layers, given, entered = self._stock.layers, [], []

        def let_pass(number: int, *args: Any, **kwargs: Any) -> Any:
            stream, args = (args[0], args[1:]) if args else (kwargs.pop("hidden_states"), ())
            if stream.ndim != embedded.ndim:
                raise _InTuple
            entered.append(stream)
            given.append((args, kwargs))
            out = behind if behind is not None and number == len(layers) - 1 else stream
            return (out,) if self._in_tuple else out

        for number, layer in enumerate(layers):
            layer.forward = partial(let_pass, number)
        try:
            out = self._stock.body(inputs_embeds=embedded, use_cache=False).last_hidden_state
        finally:
            for layer in layers:
                del layer.forward
        if out.ndim != embedded.ndim:
            raise _InTuple
        self._given[embedded.shape[0], embedded.shape[1]] = given
        return entered[0], out


class _InTuple(Exception):  # noqa: N818
    """The body takes the first of what a layer puts out, which then must be a tuple."""
