"""The process that a tokenizer.json is read in, seen from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from typing import Any

from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.measuring.tokenizer import Encode, shortened

CHILD = files(__package__).joinpath("tokenizer_child.py").read_text("utf-8")
COMMAND = (sys.executable, "-I", "-S", "-c", CHILD)
"""Nothing that lies in the working directory, or that variables name, is imported. Its text is given, and no file:
the package may be in a zip.
"""
OUT_OF_BOUNDS = {
    signal.SIGXCPU: "it takes more processor time than a tokenizer of its size",
    signal.SIGABRT: "it takes more memory than a tokenizer of its size",
}


@contextmanager
def tokenizer_process(content: bytes, bos: str | None, where: str) -> Iterator[tuple[list[int | None], Encode]]:
    """What is put before a text ([None] if `bos` is not in the tokenizer), and what makes ids of a text.

    Either raises CheckpointError, naming `where`, if the tokenizer can't be used. At the end the process is gone.
    """
    paths = json.dumps([path for path in sys.path if path])
    with subprocess.Popen(
        [*COMMAND, paths],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    ) as child:
        try:
            front = _asked(child, where, {"bytes": len(content), "bos": bos}, content)["front"]
            yield front, lambda text: list(_asked(child, where, text)["ids"])
        finally:
            child.kill()
            with suppress(BrokenPipeError):  # what it did not read
                child.communicate()


def _asked(child: subprocess.Popen[bytes], where: str, question: Any, behind: bytes = b"") -> dict[str, Any]:
    assert child.stdin
    assert child.stdout
    try:
        child.stdin.write(json.dumps(question).encode("ascii") + b"\n" + behind)
        child.stdin.flush()
        line = child.stdout.readline()
    except BrokenPipeError:
        line = b""
    answer: dict[str, Any] = json.loads(line) if line else {"error": _ended(child)}
    if "error" in answer:
        reason = shortened(answer["error"])
        raise CheckpointError(f"{where} is not a tokenizer that can be used ({reason}); restore it")
    return answer


def _ended(child: subprocess.Popen[bytes]) -> str:
    code = child.wait()
    return OUT_OF_BOUNDS.get(signal.Signals(-code), f"signal {-code}") if code < 0 else f"exit status {code}"
