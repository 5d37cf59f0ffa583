"""SentencePiece's BPE as llama.cpp has it: of neighbours that make a token, the best score merges first.

No merges are stored with such a vocabulary; `tokenizers` has no model that works by scores. Algorithm:
T. Kudo, J. Richardson, SentencePiece (2018), https://arxiv.org/abs/1808.06226, and src/bpe_model.cc there.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence


def merge_by_score(text: str, ids: Mapping[str, int], scores: Sequence[float]) -> list[str]:
    """The pieces of `text`: tokens, and characters that are none.

    `ids` are those of the tokens by their text, `scores` stand in the order of ids. Of equal scores the pair
    further left merges first. For n characters it takes time of order n log n, and memory of order n.
    """
    pieces = list(text)
    before, behind = list(range(-1, len(pieces) - 1)), list(range(1, len(pieces) + 1))
    best: list[tuple[float, int, int, str]] = []

    def consider(left: int, right: int) -> None:
        if left >= 0 and right < len(pieces):
            token = ids.get(joined := pieces[left] + pieces[right])
            if token is not None:
                heapq.heappush(best, (-scores[token], left, right, joined))

    for right in range(1, len(pieces)):
        consider(right - 1, right)
    while best:
        _, left, right, joined = heapq.heappop(best)
        # Either may have merged with another since.
        if not pieces[left] or not pieces[right] or len(pieces[left]) + len(pieces[right]) != len(joined):
            continue
        pieces[left], pieces[right] = joined, ""
        behind[left] = behind[right]
        if behind[right] < len(pieces):
            before[behind[right]] = left
        consider(before[left], left)
        consider(left, behind[left])
    return [piece for piece in pieces if piece]
