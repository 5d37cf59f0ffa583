"""What no case may do: raise an error that is not ours, take long or much memory, reach outside, run code."""

from __future__ import annotations

import os
import resource
import signal
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import gatenorm_stream
from gatenorm_stream.errors import GateNormError
from gatenorm_stream.measuring.tokenizer_process import COMMAND

MAX_SECONDS = 1.0
MAX_RSS = 300 << 20
HANG_SECONDS = 200
PATHS_OF = {
    "open": 1,
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 2,
    **dict.fromkeys(["os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.utime", "os.chown"], 1),
    **dict.fromkeys(["os.listdir", "os.scandir", "os.walk", "shutil.rmtree", "tempfile.mkdtemp"], 1),
}
NEVER = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "pickle.find_class",
    "ctypes.dlopen",
)
OURS = os.path.realpath(os.path.dirname(gatenorm_stream.__file__)) + os.sep
CODE = tuple(
    os.path.realpath(p)
    for p in {*sysconfig.get_paths().values(), sys.base_prefix, sys.prefix, str(Path(__file__).parents[2])}
)


class FindingError(AssertionError):
    """A case that did what it must not."""


class _Hang(BaseException):
    pass


class Watch:
    """Watches what is done within `case`; `permitted` are the files and directories that may be opened there."""

    def __init__(self) -> None:
        self.permitted: tuple[str, ...] = ()
        self.slowest = 0.0
        self.accepted = 0
        self.events = 0
        self.interrupted = ""
        self._interrupt_at, self._interruption = -1, _nothing
        self._active = False
        self._outside: list[str] = []
        self._way = threading.local()
        """How far down from the root a thread is that opens a file a name at a time."""
        signal.signal(signal.SIGALRM, _hang)
        sys.addaudithook(self._audit)

    def permit(self, *paths: Path) -> None:
        self.permitted = tuple(os.path.realpath(p) for p in paths)

    def interrupt(self, event: int, act: Callable[[], str]) -> None:
        """In the cases from now on, `act` happens just before so many paths were used; its answer is kept in
        `interrupted`.
        """
        self._interrupt_at, self._interruption = event, act

    def case(self, act: Callable[[], object]) -> GateNormError | None:
        """Runs `act`; returns the error of ours that it ended in, or None. Raises FindingError."""
        error, seconds = self._run(act)
        if seconds > MAX_SECONDS:  # once more, since the machine may have been busy
            seconds = min(seconds, self._run(act)[1])
        self.slowest = max(self.slowest, seconds)
        if seconds > MAX_SECONDS:
            raise FindingError(f"took {seconds:.2f} s of processor time")
        self.accepted += error is None
        return error

    def check_memory(self) -> None:
        if peak_rss() > MAX_RSS:
            raise FindingError(f"{peak_rss() >> 20} MiB of memory")

    def _run(self, act: Callable[[], object]) -> tuple[GateNormError | None, float]:
        error = None
        begun = time.process_time()
        with self._watching():
            try:
                act()
            except GateNormError as caught:
                error = caught
            except _Hang:
                raise FindingError(f"did not end in {HANG_SECONDS} s") from None
            except Exception as caught:
                raise FindingError(f"{type(caught).__name__}: {caught}") from caught
        seconds = time.process_time() - begun
        if self._outside:
            raise FindingError(self._outside[0])
        if error and (any(c in str(error) for c in "\n\r") or len(str(error)) > 2000):
            raise FindingError(f"the message is not one line: {str(error)[:200]!r}")
        return error, seconds

    @contextmanager
    def _watching(self) -> Iterator[None]:
        self._outside.clear()
        self.events, self.interrupted = 0, ""
        signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
        self._active = True
        try:
            yield
        finally:
            self._active = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._active:
            return
        if event in NEVER or event.startswith("socket."):
            own = event == "subprocess.Popen" and tuple(args[1][:-1]) == COMMAND
            if not own and (event, args) != ("ctypes.dlopen", (None,)):  # what is loaded already
                self._outside.append(f"{event}{args!r}")
        elif event == "exec":
            file = os.path.realpath(getattr(args[0], "co_filename", ""))
            if os.path.basename(file) == "<string>":  # as dataclasses makes of a class; ours never run one
                file = os.path.realpath(sys._getframe(1).f_code.co_filename)
                file = "a string" if file.startswith(OURS) else file
            if not file.startswith(CODE):
                self._outside.append(f"ran code of {file}")
        elif event in PATHS_OF:
            self.events += 1
            if self.events == self._interrupt_at:
                self._active = False
                self.interrupted = self._interruption()
                self._active = True
            for path in args[1:2] if event == "os.symlink" else args[: PATHS_OF[event]]:  # what it says is no path
                if isinstance(path, str | bytes | os.PathLike) and not self._allowed(event, path, args):
                    self._outside.append(f"{event} {path!r}")

    def _allowed(self, event: str, path: str | bytes | os.PathLike[str], args: tuple[Any, ...]) -> bool:
        path = os.fsdecode(path)
        if event == "open" and args[2] & getattr(os, "O_PATH", 0) and (path == os.sep or os.sep not in path):
            self._way.at = os.path.join(getattr(self._way, "at", ""), path)  # nothing of it is read
            return True
        if event == "open" and os.sep not in path and (at := getattr(self._way, "at", "")):
            path = os.path.join(at, path)
        self._way.at = ""
        if _in_open_folder(event, path, args):
            return True
        real = os.path.realpath(path)
        if any(real == p or real.startswith(p + os.sep) for p in self.permitted):
            return True
        if real in (os.devnull, "/proc/sys/kernel/random/boot_id"):
            return True
        if real.startswith(f"/proc/{os.getpid()}/fdinfo/"):
            return True
        reads = event != "open" or not (args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        return reads and real.startswith(CODE) and not real.endswith(".safetensors")


def _in_open_folder(event: str, path: str, args: tuple[Any, ...]) -> bool:
    """A single name, looked up in a directory that is open already, and through no link."""
    if "/" in path or path in ("", ".", ".."):
        return False
    if event == "open":  # Python does not tell the directory
        return bool(args[2] & os.O_NOFOLLOW)
    return event in ("os.remove", "os.rmdir", "os.mkdir", "os.rename", "os.symlink") and args[-1] != -1


def _nothing() -> str:
    return ""


def _hang(*_: object) -> NoReturn:
    raise _Hang


def peak_rss() -> int:
    """Bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
