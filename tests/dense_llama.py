"""A Llama in float64, whole matrices at a time: short, and written independently of the package under test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Sublayer = tuple[np.ndarray, np.ndarray]
"""The stream before attention, and what attention puts out: (length, hidden) each."""


@dataclass
class DenseLlama:
    """`tensors` under the names of safetensors. `pairs` as llama.cpp rotates; `divisors` of its rotation speeds."""

    tensors: Mapping[str, np.ndarray]
    config: Mapping[str, Any]
    pairs: bool = False
    divisors: np.ndarray | float = 1.0
    windows: Mapping[int, int] = field(default_factory=dict)

    def run(self, tokens: np.ndarray, replaced: Mapping[int, Any] = {}) -> tuple[np.ndarray, list[Sublayer]]:
        """Logits of each token; every layer's attention, which `replaced` says what to put in the place of."""
        x, seen = self.tensors["model.embed_tokens.weight"][tokens], []
        for n in range(self.config["num_hidden_layers"]):
            p = f"model.layers.{n}."
            a = self.attention(n, self.norm(x, f"{p}input_layernorm"))
            seen.append((x, a))
            x = x + replaced.get(n, a)
            u = self.norm(x, f"{p}post_attention_layernorm")
            gate = self.linear(u, f"{p}mlp.gate_proj")
            x = x + self.linear(gate / (1 + np.exp(-gate)) * self.linear(u, f"{p}mlp.up_proj"), f"{p}mlp.down_proj")
        tied = self.config.get("tie_word_embeddings")
        head = self.tensors["model.embed_tokens.weight" if tied else "lm_head.weight"]
        return self.norm(x, "model.norm") @ head.T, seen

    def losses(self, tokens: np.ndarray, replaced: Mapping[int, Any] = {}) -> np.ndarray:
        logits = self.run(tokens, replaced)[0][:-1]
        chances = np.exp(logits - logits.max(-1, keepdims=True))
        chances /= chances.sum(-1, keepdims=True)
        return -np.log(chances[np.arange(len(tokens) - 1), tokens[1:]])

    def means(self, tokens: np.ndarray, dropped: tuple[int, ...]) -> dict[int, np.ndarray]:
        """Each of the model in which the earlier ones are in place already, of all tokens but the first."""
        replaced: dict[int, np.ndarray] = {}
        for layer in sorted(dropped):
            replaced[layer] = self.run(tokens, replaced)[1][layer][1][1:].mean(0)
        return replaced

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.tensors[f"{name}.weight"].T + self.tensors.get(f"{name}.bias", 0)

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        squares = (x**2).mean(-1, keepdims=True)
        return x / np.sqrt(squares + self.config["rms_norm_eps"]) * self.tensors[f"{name}.weight"]

    def attention(self, n: int, u: np.ndarray) -> np.ndarray:
        heads, keys = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        p = f"model.layers.{n}.self_attn."
        length, out = len(u), []
        q, k, v = (self.linear(u, f"{p}{part}_proj") for part in "qkv")
        dim = q.shape[1] // heads
        behind = np.arange(length)[:, None] - np.arange(length)
        sees = (behind >= 0) & (behind < self.windows.get(n, length))
        for h in range(heads):
            g = h // (heads // keys)
            mine, theirs = q[:, h * dim : (h + 1) * dim], k[:, g * dim : (g + 1) * dim]
            scores = self.rotated(mine) @ self.rotated(theirs).T / np.sqrt(dim)
            shares = np.where(sees, np.exp(np.where(sees, scores, 0)), 0)
            out.append(shares / shares.sum(-1, keepdims=True) @ v[:, g * dim : (g + 1) * dim])
        return self.linear(np.concatenate(out, -1), f"{p}o_proj")

    def rotated(self, head: np.ndarray) -> np.ndarray:
        """As complex numbers, each turned by its position's angle."""
        dim = head.shape[1]
        a, b = (head[:, ::2], head[:, 1::2]) if self.pairs else (head[:, : dim // 2], head[:, dim // 2 :])
        speeds = self.config["rope_theta"] ** (-2 * np.arange(dim // 2) / dim) / self.divisors
        turned = (a + 1j * b) * np.exp(1j * np.outer(np.arange(len(head)), speeds))
        return np.concatenate([turned.real, turned.imag], -1)
