"""The installed command, already started: a process that has loaded its modules forks for every run.

Each run is a process of its own, with its own arguments, environment, directory, output and exit code. Only the
loading is shared, most of a short run's time; huggingface_hub, which reads the environment while it loads, is left
to each run. What the interpreter itself reads of the environment (PYTHON...) is the server's: a run that wants
another starts from nothing.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

COMMAND = str(Path(sys.executable).with_name("gatenorm-stream"))
SECONDS = 60
UTF8 = {"PYTHONUTF8": "1"}
LATE = (
    "gatenorm_stream.measuring.measure",
    "gatenorm_stream.measuring.numpy_decoder",
    "gatenorm_stream.measuring.tokenizer_json",
    "gatenorm_stream.report.before_after",
    "gatenorm_stream.report.explanation",
    "gatenorm_stream.report.measurement_table",
    "gatenorm_stream.report.plot",
    "gatenorm_stream.verifying.verify",
    "safetensors",
    "tokenizers",
)
"""What commands import where they need it."""
OF_THE_HUB = ("anyio", "filelock", "h11", "httpcore2", "httpx2", "tqdm", "truststore", "yaml")
"""What huggingface_hub imports in its turn, as far as it is installed."""

Done = subprocess.CompletedProcess[str]


class Started:
    """Holds the server; `close` ends it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._server = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            env={**os.environ, **UTF8},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        self._connection = ours.makefile("rwb")
        ours.close()

    def run(self, arguments: list[str], directory: Path, environment: Mapping[str, str]) -> Done:
        """What the command printed and its exit code: -14 if it took more than SECONDS."""
        command = [COMMAND, *arguments]
        if _of_the_interpreter(environment) != _of_the_interpreter({**os.environ, **UTF8}):
            return _from_nothing(command, directory, environment)
        with TemporaryDirectory() as folder:
            self._connection.write(
                json.dumps([command, str(directory), dict(environment), folder]).encode() + b"\n"
            )
            self._connection.flush()
            code = int(self._connection.readline())
            out, err = (Path(folder, name).read_text("utf-8") for name in ("out", "err"))
        return subprocess.CompletedProcess(command, code, out, err)

    def close(self) -> None:
        self._connection.close()
        self._server.wait(SECONDS)


def _of_the_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith("PYTHON")}


def _from_nothing(command: list[str], directory: Path, environment: Mapping[str, str]) -> Done:
    return subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def _load() -> None:
    """Imports what runs import, by making one, too. The tree of commands that it builds is every run's."""
    import typer.main

    from gatenorm_stream.__main__ import main

    typer.main.get_command = functools.cache(typer.main.get_command)
    for name in LATE:
        importlib.import_module(name)
    for name in OF_THE_HUB:
        with suppress(ImportError):
            importlib.import_module(name)
    sys.argv = [COMMAND, str(Path(__file__).parents[1] / "fixtures" / "sotu-5m"), "--dry-run"]
    with suppress(SystemExit), open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        main()


def _serve(connection: socket.socket) -> None:
    """Answers each request with the exit code of a child; returns in each child, set up to be that run."""
    with connection.makefile("rwb") as stream:
        for line in stream:
            command, directory, environment, folder = json.loads(line)
            child = os.fork()
            if child == 0:
                break
            _, status = os.waitpid(child, 0)
            stream.write(b"%d\n" % os.waitstatus_to_exitcode(status))
            stream.flush()
        else:
            sys.exit()
    signal.alarm(SECONDS)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT), number)
    sys.argv = command


def _finish() -> NoReturn:
    """Runs the command and ends as the interpreter does, but takes no module apart: a third of a short run."""
    from gatenorm_stream.__main__ import main

    code: object = None
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    if not isinstance(code, int | None):
        sys.exit(str(code))
    threading._shutdown()  # type: ignore[attr-defined]  # as multiprocessing ends its processes
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    connection = socket.socket(fileno=int(sys.argv[1]))
    _load()
    gc.collect()
    gc.freeze()
    _serve(connection)
    _finish()
