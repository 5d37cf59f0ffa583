"""Compares the ids that AutoTokenizer gives for pruned checkpoints with those for their sources.

    python tokens.py TEXT SOURCE PRUNED [SOURCE PRUNED ...]

Needs only transformers. Prints for each pair the class of the source's tokenizer, and which of "remote code" and
"without" give its ids.
"""

from __future__ import annotations

import json
import sys

from transformers import AutoTokenizer

text, *folders = sys.argv[1:]
for source, pruned in zip(folders[::2], folders[1::2], strict=True):
    before = AutoTokenizer.from_pretrained(source)
    expected = before(text).input_ids
    same = []
    for way, trust in (("remote code", True), ("without", False)):
        try:
            after = AutoTokenizer.from_pretrained(pruned, trust_remote_code=trust)
        except (ValueError, OSError) as error:
            print(error, file=sys.stderr)
            continue
        if after(text).input_ids == expected:
            same.append(way)
    print(json.dumps([type(before).__name__, same]))
