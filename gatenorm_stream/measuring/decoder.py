"""What runs a model a layer at a time, whatever does the arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Stream: TypeAlias = npt.NDArray[np.float32]
"""(rows, length, hidden)"""
Tokens: TypeAlias = npt.NDArray[np.int64]
"""(rows, length); every row starts at position 0."""
RowNumbers: TypeAlias = npt.NDArray[np.intp]
Settle: TypeAlias = Callable[[Stream, Stream], None]
"""settle(stream, attention): called once by each layer that has softmax attention, with the stream before the
sublayer and what the sublayer puts out, both (rows, length, hidden); it may change `attention` in place."""


class Decoder(Protocol):
    @property
    def title(self) -> str:
        """Of the model's source."""

    @property
    def layers(self) -> int: ...

    def embed(self, tokens: Tokens) -> Stream: ...

    def layer(
        self, number: int, stream: Stream, idle: npt.NDArray[np.bool_], settle: Settle, onward: RowNumbers
    ) -> Stream:
        """The stream behind layer `number`, of the rows in `onward`, which rise: the others end with attention.

        Attention of rows in `idle`, (rows,), need not be computed: it is given to `settle` as zeros. What was in
        `stream` may be overwritten.
        """

    def added(self, number: int, attention: Stream) -> Stream:
        """What the stream gets when the attention of layer `number` puts out `attention`; both of a stream's shape.

        In most families the same; some have a norm or a factor in between. Only from within `settle`.
        """

    def losses(self, stream: Stream, tokens: Tokens) -> npt.NDArray[np.float64]:
        """Nats of each predicted token, (rows, length - 1): final norm, head a block of rows at a time."""
