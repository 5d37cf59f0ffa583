"""A model's held-out loss and three small tasks, with any attention sublayers silenced in memory.

    loss        nats per token of held-out text
    closing     held-out tokens that are `)`, `]` or `}`: how often the right one of the three is the likeliest
    copying     256 tokens of held-out text twice: how often the second time's next token is the likeliest of all
    induction   the same with 256 tokens drawn at random

On a GPU the forward pass is captured once as a CUDA graph; silencing changes weights in place, which it sees.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from benchmarks.quality.data import Tokens, windows
from benchmarks.quality.kinds import CONTEXT
from benchmarks.quality.train import last_hidden

BATCH = 32
HELD_OUT = 128  # windows
CALIBRATION = 32
TASK = 32
HALF = CONTEXT // 2
SETTLED = 8  # tokens of the second half that tell where the repetition stands
TASK_SEED = 0


@dataclass(frozen=True)
class Outcome:
    loss: float
    closing: float | None
    copying: float
    induction: float


@dataclass(frozen=True)
class Rows:
    """Windows of CONTEXT + 1 tokens on the model's device, shape (n, CONTEXT + 1)."""

    heldout: torch.Tensor
    copying: torch.Tensor
    induction: torch.Tensor
    calibration: torch.Tensor


def evenly(rows: torch.Tensor, count: int) -> torch.Tensor:
    at = torch.linspace(0, len(rows) - 1, min(count, len(rows))).long()
    return rows[at.to(rows.device)].long()


def rows_of(tokens: Tokens, scale: int = 1) -> Rows:
    """The same windows for every model; `scale` divides their number, for trials."""
    held_out = windows(tokens.heldout, CONTEXT)
    generator = torch.Generator().manual_seed(TASK_SEED)
    drawn = torch.randint(0, tokens.vocabulary, (max(1, TASK // scale), HALF), generator=generator).to(
        held_out.device
    )

    def twice(rows: torch.Tensor) -> torch.Tensor:
        return torch.cat([rows[:, :HALF], rows[:, :HALF], rows[:, :1]], dim=1)

    return Rows(
        heldout=evenly(held_out, max(1, HELD_OUT // scale)),
        copying=twice(evenly(held_out, max(1, TASK // scale))),
        induction=twice(drawn),
        calibration=evenly(windows(tokens.validation, CONTEXT), max(1, CALIBRATION // scale)),
    )


@contextmanager
def silenced(model: PreTrainedModel, layers: Sequence[int]) -> Iterator[None]:
    """The attention output of `layers` is zero inside; the weights are as they were afterwards."""
    outputs = [model.model.layers[i].self_attn.o_proj.weight for i in layers]
    kept = [weight.detach().clone() for weight in outputs]
    with torch.no_grad():
        for weight in outputs:
            weight.zero_()
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(outputs, kept, strict=True):
                weight.copy_(value)


class Evaluation:
    def __init__(self, model: PreTrainedModel, rows: Rows, closers: Sequence[int]) -> None:
        self.model, self.rows = model, rows
        self.closers = torch.tensor(closers, device=model.device)
        self.sums = self._captured(rows.heldout[:BATCH]) if model.device.type == "cuda" else self._sums

    @torch.no_grad()
    def _sums(self, part: torch.Tensor) -> torch.Tensor:
        """Of a batch: nats, closers right, closers, likeliest tokens right in the second half; float64, (4,)."""
        targets = part[:, 1:]
        logits = self.model.lm_head(last_hidden(self.model, part[:, :-1])).float()
        nats = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").double().sum()
        is_closer = (targets[..., None] == self.closers).any(-1)
        guess = self.closers[logits[..., self.closers].argmax(-1)]
        late = (logits.argmax(-1) == targets)[:, HALF + SETTLED - 1 : -1]
        return torch.stack([nats, ((guess == targets) & is_closer).sum(), is_closer.sum(), late.sum()])

    def _captured(self, example: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        fixed = example.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._sums(fixed)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self._sums(fixed)

        def run(part: torch.Tensor) -> torch.Tensor:
            if part.shape != fixed.shape:
                return self._sums(part)
            fixed.copy_(part)
            graph.replay()
            return result.clone()

        return run

    def _total(self, rows: torch.Tensor) -> list[float]:
        return torch.stack([self.sums(part) for part in rows.split(BATCH)]).sum(0).tolist()

    def outcome(self, layers: Sequence[int] = ()) -> Outcome:
        with silenced(self.model, layers):
            nats, right, closers, _ = self._total(self.rows.heldout)
            copied, induced = (self._total(rows)[3] for rows in (self.rows.copying, self.rows.induction))
        late = HALF - SETTLED
        return Outcome(
            loss=nats / self.rows.heldout[:, 1:].numel(),
            closing=right / closers if closers else None,
            copying=copied / (len(self.rows.copying) * late),
            induction=induced / (len(self.rows.induction) * late),
        )

    def heldout_loss(self, layers: Sequence[int] = ()) -> float:
        with silenced(self.model, layers):
            return self._total(self.rows.heldout)[0] / self.rows.heldout[:, 1:].numel()

    def calibration_loss(self, layers: Sequence[int] = ()) -> float:
        with silenced(self.model, layers):
            return self._total(self.rows.calibration)[0] / self.rows.calibration[:, 1:].numel()
