"""A tokenizer from a stranger's tokenizer.json, in a process of its own with bounds of memory and processor time.

Such a file is a program: regular expressions that go on for ever, replacements that double the text, tries of
words of a megabyte. The package `tokenizers` bounds none of that, ends the process where memory ends, writes its
panics to stderr, and lets no signal through while it reads. `tokenizer_process` starts this file, which imports
nothing of ours.
"""

from __future__ import annotations

import json
import math
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

LEAST_BYTES, BYTES_FOR_FILE, BYTES_FOR_TEXT = 256 << 20, 24, 256
"""Of memory: for the interpreter, and for each byte of the file and of a text. Of a file of 17 MB with 262,000
tokens, each took 12; of texts of 8 MB, 110 to 180.
"""
LEAST_SECONDS, SECONDS_FOR_FILE, SECONDS_FOR_TEXT = 10, 1e-6, 1e-5
"""Of processor time, the same. Each byte of that file took 8e-8, of those texts 2e-6."""


def main() -> None:
    """stdin: a line of JSON with the file's `bytes` and its `bos` (null: as its post-processor says), the file,
    then texts, a line of JSON each. stdout: `front` in a line, then `ids` for each text; or `error`, the last.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.path[:] = json.loads(sys.argv[1])
    told = json.loads(sys.stdin.buffer.readline())
    size = told["bytes"]
    _bound(size)
    content = sys.stdin.buffer.read(size)
    try:
        tokenizer = _load(content)
        _say(front=_front(tokenizer, told["bos"]))
        while line := sys.stdin.buffer.readline():
            _bound(size, len(line))
            _say(ids=_encoding(tokenizer, json.loads(line), special=False).ids)
    except BaseException as error:  # a panic is no Exception
        _say(error=str(error) or type(error).__name__)


def _bound(file: int, text: int = 0) -> None:
    memory = LEAST_BYTES + BYTES_FOR_FILE * file + BYTES_FOR_TEXT * text
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime + LEAST_SECONDS + SECONDS_FOR_FILE * file + SECONDS_FOR_TEXT * text
    for what, most in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_CPU, math.ceil(seconds))):
        with suppress(OSError, ValueError):  # a lower bound of the user's holds
            resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


def _load(content: bytes) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(content)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _front(tokenizer: Any, bos: str | None) -> list[int | None]:
    """What is put before the text; [None] if the tokenizer does not hold `bos`."""
    if bos is not None:
        return [tokenizer.token_to_id(bos)] if bos else []
    encoding = _encoding(tokenizer, "a", special=True)
    added = list(encoding.special_tokens_mask)
    return list(encoding.ids[: added.index(0)]) if 0 in added else []


def _encoding(tokenizer: Any, text: str, *, special: bool) -> Any:
    return tokenizer.encode(text, add_special_tokens=special)


def _say(**answer: Any) -> None:
    write: Callable[[str], int] = sys.stdout.write
    write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
