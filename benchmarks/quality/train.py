"""Train one decoder of a kind from one seed, and keep stock checkpoints along the way.

    python -m benchmarks.quality.train --tokens .corpus/tokens --kind mha-12 --seed 0 --out .corpus/models

Every window of the training text is seen at most once; the last step is the model. No held-out
number tuned it.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy, linear
from transformers import PreTrainedModel

from benchmarks.quality.data import Tokens, load, windows
from benchmarks.quality.kinds import CONTEXT, KINDS, Kind, new_model


@dataclass(frozen=True)
class Recipe:
    tokens: int = 32_000_000
    batch: int = 64  # windows
    learning_rate: float = 2e-3
    warm_up: float = 0.04  # share of the steps
    weight_decay: float = 0.1
    clip: float = 1.0
    final_rate: float = 0.05  # of the peak rate
    keep: tuple[float, ...] = (0.1, 0.4, 1.0)  # shares of the steps after which a checkpoint is saved
    context: int = CONTEXT

    @property
    def steps(self) -> int:
        return self.tokens // (self.batch * self.context)


@dataclass(frozen=True)
class Checkpoint:
    step: int
    tokens: int
    train_loss: float  # mean of the last steps
    directory: str
    ready: float  # seconds until the first step: the model made, its step compiled and captured
    seconds: float


def rate(recipe: Recipe, step: int) -> float:
    """Learning rate of step 1, 2, ...: a warm-up, then half a cosine."""
    warm_up = max(1, int(recipe.warm_up * recipe.steps))
    cosine = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    share = min(1.0, step / warm_up) * (recipe.final_rate + (1 - recipe.final_rate) * cosine)
    return recipe.learning_rate * share


def optimizer_for(model: PreTrainedModel, recipe: Recipe, learning_rate: torch.Tensor) -> torch.optim.AdamW:
    """AdamW that decays matrices only; `learning_rate` is read anew at each step."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    on_gpu = learning_rate.is_cuda
    options = {"fused": True, "capturable": True} if on_gpu else {"foreach": False}
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), **options)


def last_hidden(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """The stock model's modules one after the other, without what its forward does around them on the CPU."""
    hidden = model.model.embed_tokens(ids)
    places = torch.arange(ids.shape[1], device=ids.device)[None]
    rotary = model.model.rotary_emb(hidden, position_ids=places)
    for layer in model.model.layers:
        hidden = layer(hidden, attention_mask=None, position_ids=places, position_embeddings=rotary)
    return model.model.norm(hidden)


def head_loss(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy(linear(hidden, weight).flatten(0, 1).float(), targets.flatten())


def train(kind: Kind, seed: int, tokens: Tokens, recipe: Recipe, out: Path, compiled: bool) -> list[Checkpoint]:
    """Checkpoints in the order of training, saved in bfloat16 below `out`.

    With `compiled` each layer and the loss are compiled (one graph for all layers). Raises ValueError if the text
    is shorter than the recipe's tokens, FloatingPointError if the loss is no longer finite.
    """
    device = tokens.train.device
    started = time.monotonic()
    model = new_model(kind, tokens.vocabulary, tokens.end, seed).to(device).train()
    head = head_loss
    if compiled:
        head = torch.compile(head_loss, dynamic=False)
        for layer in model.model.layers:
            layer.compile(dynamic=False)
    rows = windows(tokens.train, recipe.context)
    if len(rows) < recipe.steps * recipe.batch:
        raise ValueError(f"{recipe.tokens} tokens asked for, {len(rows) * recipe.context} there")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).to(device)
    learning_rate = torch.zeros((), device=device)
    optimizer = optimizer_for(model, recipe, learning_rate)

    def forward(part: torch.Tensor) -> torch.Tensor:
        ids = part.long()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return head(last_hidden(model, ids[:, :-1]), model.lm_head.weight, ids[:, 1:])

    def step(part: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = forward(part)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        return loss.detach()

    run = captured(step, optimizer, rows[order[: recipe.batch]]) if compiled else step
    ready = time.monotonic() - started
    wanted = {max(1, round(share * recipe.steps)) for share in recipe.keep}
    kept, recent = [], []
    for number in range(1, recipe.steps + 1):
        learning_rate.fill_(rate(recipe, number))
        loss = run(rows[order[(number - 1) * recipe.batch : number * recipe.batch]])
        recent = [*recent[-31:], loss]
        if number in wanted:
            train_loss = torch.stack(recent).mean().item()
            if not math.isfinite(train_loss):
                raise FloatingPointError(f"loss {train_loss} at step {number}")
            seconds = time.monotonic() - started
            directory = out / f"{kind.name}-s{seed}-{number:06}"
            save(model, directory)
            seen = number * recipe.batch * recipe.context
            kept.append(Checkpoint(number, seen, train_loss, directory.name, ready, seconds))
    return kept


def captured(
    step: Callable[[torch.Tensor], torch.Tensor], optimizer: torch.optim.Optimizer, example: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """`step` as a CUDA graph, so that small kernels wait for no launch.

    Call it with a learning rate of 0: the steps that warm it up leave the weights alone; moments are reset.
    """
    fixed = example.clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(fixed)
    torch.cuda.current_stream().wait_stream(side)
    optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = step(fixed)
    for state in optimizer.state.values():
        for value in state.values():
            value.zero_()

    def run(part: torch.Tensor) -> torch.Tensor:
        fixed.copy_(part)
        graph.replay()
        return result.clone()

    return run


def save(model: PreTrainedModel, directory: Path) -> None:
    """A stock checkpoint in bfloat16."""
    rounded = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    type(model)(model.config).to(torch.bfloat16).save_pretrained(directory, state_dict=rounded)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=Path, required=True, help="folder that corpus.py wrote")
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    tokens = load(args.tokens).to(args.device)
    compiled = args.device == "cuda"
    for checkpoint in train(KINDS[args.kind], args.seed, tokens, Recipe(), args.out, compiled):
        print(asdict(checkpoint))


if __name__ == "__main__":
    main()
