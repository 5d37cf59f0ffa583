"""Hostile model cards: YAML that hangs or swells a parser, cut and mixed with what people write."""

from __future__ import annotations

import random
from itertools import pairwise

from tests.fuzz.mutate import mutate

ORDINARY = b"""---
license: apache-2.0
language:
- en
- 'no'
base_model: org/name
tags: [a, "b c", 'd']
library_name: transformers # comment
model-index:
- name: x
  results: []
---

# Model
"""
ALIASES = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in pairwise("abcdefghi"))
PIECES = (
    *(ALIASES.encode(), b"tags: *i\n", b"<<: *a\n", b"&a [*a]", b"!!python/object/apply:os.system [x]\n"),
    *(b"tags: " + b"[" * 5000, b"tags: [" + b"'," * 5000, b'tags: ["' + b"\\" * 5000, b"license: " + b"1_" * 5000),
    *(b"license: |\n  mit\n", b"license: " + b" #" * 5000, b"\xff\xfe", b"\xe2\x80\xae", b"\x1b[2J", b"\0"),
    *(
        b"tags:\n" * 2000,
        b"- " * 5000,
        b"---\n",
        b"...\n",
        b"{a: " * 3000,
        b"license: {a: b}\n",
        b"\r",
        b"\xc2\x85",
    ),
)


def card(rng: random.Random) -> bytes:
    data = mutate(rng, ORDINARY, [ORDINARY, *PIECES])
    for _ in range(rng.choice((0, 1, 1, 2))):
        at = rng.randrange(len(data) + 1)
        data = data[:at] + rng.choice(PIECES) + data[at:]
    return data
