"""Runs the command again and again, each time in a child of one process that has everything imported.

Started with faults.so preloaded. Reads one request a line and answers each with one line, both JSON.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import signal
import sys
import tempfile
import time
from typing import Any

import huggingface_hub.repocard  # noqa: F401
import numpy  # noqa: F401
import safetensors.numpy  # noqa: F401
import typer.main

import gatenorm_stream.api
import gatenorm_stream.report.progress  # noqa: F401
from gatenorm_stream.cli.main import app, main

faults = ctypes.CDLL(None)
faults.fault_name.restype = ctypes.c_char_p
faults.fault_name.argtypes = [ctypes.c_long]
faults.fault_changes.restype = faults.fault_reads.restype = ctypes.c_long
faults.fault_arm.argtypes = [
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_int,
]
faults.fault_lack.argtypes = [ctypes.c_char_p, ctypes.c_int]


def answer(request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        begun = time.monotonic()
        children = [started(request, errors.fileno()) for _ in range(request.get("side_by_side", 1))]
        if "signal_after" in request:
            time.sleep(request["signal_after"])
            os.kill(children[0], request["signal"])
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        errors.seek(0)
        changes = faults.fault_changes()
        return {
            "code": codes[0],
            "codes": codes,
            "stderr": errors.read(),
            "seconds": time.monotonic() - begun,
            "reads": faults.fault_reads(),
            "changes": [faults.fault_name(n + 1).decode() for n in range(changes)],
        }


def started(request: dict[str, Any], errors: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(errors, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["gatenorm-stream", *request["args"]]
        fault = request["fault"]
        faults.fault_arm(
            fault["to"].encode(),
            fault["from"].encode(),
            fault["reads"],
            fault["nth"],
            fault["mode"],
            fault["error"],
        )
        if lack := request.get("lack"):
            faults.fault_lack(lack[0].encode(), lack[1])
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    typer.main.get_command = functools.cache(typer.main.get_command)
    typer.main.get_command(app)
    faults.fault_prepare()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
