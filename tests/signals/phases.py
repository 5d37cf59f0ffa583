"""Long work, each kind held up where it is: what is started, and how to tell that it is in that phase."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from fcntl import LOCK_EX, flock
from pathlib import Path

from benchmarks.gguf_large import metadata, tensors
from benchmarks.shapes import SHAPES, Shape, write_sparse
from gatenorm_stream.checkpoint.gguf_header import build_header
from gatenorm_stream.checkpoint.tensors import with_offsets
from gatenorm_stream.sources.hub.guard import LEAST_RATE
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.conftest import FIXTURE
from tests.hub.hub_faults import Fault, Request
from tests.hub.hub_runs import environment
from tests.hub.hub_server import Hub
from tests.signals.ending import Reached
from tests.started import COMMAND

BUSY_SECONDS = 2.0
"""Of the processor: long after all is loaded, and long before the work is done."""
SOON = 60


@dataclass
class Place:
    """Where a phase is set up: `closing` ends what it opens, `variables` are those of the command."""

    folder: Path
    hub: Hub
    slow_disk: Path
    closing: ExitStack
    variables: dict[str, str] = field(default_factory=dict)

    def fails(self, fault: str, value: float = 0, *, matches: Callable[[Request], bool], **more: int) -> Reached:
        """The Hub's fault; reached once a request met it."""
        seen = threading.Event()

        def match(request: Request) -> bool:
            if found := matches(request):
                seen.set()
            return found

        self.hub.faults.add(Fault(fault, value, match, times=None, **more))  # type: ignore[arg-type]
        return lambda _: seen.is_set()

    def slow(self, calls: str, below: Path, start: int = 0) -> Reached:
        """A disk that does not answer where these `calls` (READS, CHANGES) meet what is `below`."""
        seen = self.folder / "seen"
        self.variables |= {
            "LD_PRELOAD": str(self.slow_disk),
            f"SLOW_{calls}": str(below),
            "SLOW_FROM": str(start),
            "SLOW_SEEN": str(seen),
        }
        return lambda _: seen.exists()

    def llama(self, **changes: object) -> Path:
        config = llama_config(**changes)
        return write_checkpoint(self.folder / "llama", random_tensors(llama_shapes()), config)


Phase = Callable[[Place], tuple[list[str | Path], Reached]]


def _busy(process: subprocess.Popen[str]) -> bool:
    ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") > BUSY_SECONDS


def _listening(place: Place, talk: Callable[[socket.socket], None], backlog: int = 8) -> tuple[int, Reached]:
    """The port of a server that answers each connection with `talk`; reached once there is one."""
    server = place.closing.enter_context(socket.create_server(("127.0.0.1", 0), backlog=backlog))
    seen = threading.Event()

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                place.closing.callback(connection.close)
                connection.recv(1 << 16)
                seen.set()
                talk(connection)

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1], lambda _: seen.is_set()


def _drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b"[")
        time.sleep(1)


def silent_listing(place: Place) -> tuple[list[str | Path], Reached]:
    port, reached = _listening(place, lambda _: None)
    place.variables |= {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_DOWNLOAD_TIMEOUT": "60"}
    return ["score", "org/name"], reached


def dripping_listing(place: Place) -> tuple[list[str | Path], Reached]:
    port, reached = _listening(place, _drip)
    place.variables |= {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_DOWNLOAD_TIMEOUT": "60"}
    return ["score", "org/name"], reached


def silent_handshake(place: Place) -> tuple[list[str | Path], Reached]:
    port, reached = _listening(place, lambda _: None)
    place.variables |= {"HF_ENDPOINT": f"https://127.0.0.1:{port}", "HF_HUB_DOWNLOAD_TIMEOUT": "60"}
    return ["score", "org/name"], reached


def no_answer_to_a_connection(place: Place) -> tuple[list[str | Path], Reached]:
    """A queue of connections that is full: the system drops what is sent to open another."""
    server = place.closing.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    port = server.getsockname()[1]
    for _ in range(4):
        waiting = place.closing.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(("127.0.0.1", port))
    place.variables |= {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_DOWNLOAD_TIMEOUT": "60"}
    wanted = f"0100007F:{port:04X} 02 "

    def connecting(process: subprocess.Popen[str]) -> bool:
        mine = set()
        with suppress(OSError):
            mine = {os.readlink(link) for link in Path(f"/proc/{process.pid}/fd").iterdir()}
        lines = Path("/proc/net/tcp").read_text().splitlines()
        return any(wanted in line and f"socket:[{line.split()[9]}]" in mine for line in lines)

    return ["score", "org/name"], connecting


def _of_shards(request: Request) -> bool:
    return request.file.endswith(".safetensors") and request.range is not None


def silent_headers(place: Place) -> tuple[list[str | Path], Reached]:
    return ["score", "org/sotu"], place.fails("delay", SOON, matches=_of_shards)


def silent_weights(place: Place) -> tuple[list[str | Path], Reached]:
    words: list[str | Path] = ["org/sotu", "--out", place.folder / "out"]
    return words, place.fails("stall", matches=lambda r: _of_shards(r) and r.origin == "storage", skip=8)


def dripping_weights(place: Place) -> tuple[list[str | Path], Reached]:
    """Twice as fast as what is given up as too slow."""
    reached = place.fails("delay", 0, matches=_of_shards)
    place.hub.rate = 2 * LEAST_RATE
    return ["org/sotu", "--out", place.folder / "out"], reached


def whole_weights(place: Place) -> tuple[list[str | Path], Reached]:
    words: list[str | Path] = ["measure", "org/sotu"]
    return words, place.fails("stall", matches=lambda r: _of_shards(r) and r.origin == "storage", skip=8)


def another_run_holds_the_cache(place: Place) -> tuple[list[str | Path], Reached]:
    repository = place.hub.repositories["org/sotu"]
    locks = place.folder / "hf-home" / "hub" / ".locks" / "models--org--sotu"
    locks.mkdir(parents=True)
    for file in repository.files(repository.commit):
        name = file.sha256 if file.is_lfs else file.blob
        flock(place.closing.enter_context((locks / f"{name}.lock").open("w")), LOCK_EX)
    return ["measure", "org/sotu"], _said(place, "is being fetched by another run")


def _said(place: Place, words: str) -> Reached:
    return lambda _: words in (place.folder / "stderr").read_text()


def waiting_to_try_again(place: Place) -> tuple[list[str | Path], Reached]:
    place.fails("status", 503, matches=lambda r: r.origin == "storage", retry_after=300)
    return ["score", "org/sotu"], _said(place, "trying again in")


def silent_upload(place: Place) -> tuple[list[str | Path], Reached]:
    out = place.folder / "finished"
    subprocess.run([COMMAND, str(FIXTURE), "--out", str(out), "--quiet"], check=True)
    place.variables |= {"HF_TOKEN": "hf_secret", "HF_HUB_DISABLE_XET": "1"}
    return ["push", out, "org/new"], place.fails("delay", SOON, matches=lambda r: r.method == "PUT")


def tokenising(place: Place) -> tuple[list[str | Path], Reached]:
    """A text that comes through a pipe: whoever wrote it knows when it was read."""
    text, written = place.folder / "text", threading.Event()
    os.mkfifo(text)

    def write() -> None:
        with open(text, "wb") as pipe, suppress(BrokenPipeError):
            pipe.write(b"The people of the United States, " * 3_000_000)
        time.sleep(0.7)
        written.set()

    threading.Thread(target=write, daemon=True).start()
    model = place.llama(max_position_embeddings=1_000_000)
    shutil.copyfile(FIXTURE / "tokenizer.json", model / "tokenizer.json")
    return ["measure", model, "--text", text, "--tokens", "400000"], lambda _: written.is_set()


def reading_a_tokenizer(place: Place) -> tuple[list[str | Path], Reached]:
    """Of 1,500,000 tokens, which takes seconds. Reached half a second after the process for it began."""
    model, begun = place.llama(), list[float]()
    content = json.loads((FIXTURE / "tokenizer.json").read_text())
    content["model"]["vocab"] |= {f"token {n}": 4096 + n for n in range(1_500_000)}
    (model / "tokenizer.json").write_text(json.dumps(content))

    def reached(process: subprocess.Popen[str]) -> bool:
        if not begun and Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text():
            begun.append(time.monotonic())
        return bool(begun) and time.monotonic() - begun[0] > 0.5

    return ["measure", model, "--tokens", "64"], reached


def _sparse(place: Place, shape: Shape) -> Path:
    model = write_sparse(shape, place.folder / "sparse", rows=0.001)
    shutil.copyfile(FIXTURE / "tokenizer.json", model / "tokenizer.json")
    return model


def measuring(place: Place) -> tuple[list[str | Path], Reached]:
    return ["measure", _sparse(place, SHAPES["13B"]), "--by", "influence", "--tokens", "256"], _busy


def scoring_whole_projections(place: Place) -> tuple[list[str | Path], Reached]:
    return ["score", _sparse(place, SHAPES["405B"]), "--reading", "joint"], _busy


def dequantising(place: Place) -> tuple[list[str | Path], Reached]:
    model, shape = place.folder / "model.gguf", SHAPES["70B"]
    placed = with_offsets(tensors(shape, "Q4_K"), 32)
    header = build_header(metadata(shape), placed)
    model.write_bytes(header)
    os.truncate(model, len(header) + placed[-1].data.stop)
    return ["score", model], _busy


def reading(place: Place) -> tuple[list[str | Path], Reached]:
    model = place.llama()
    return [model, "--out", place.folder / "out"], place.slow("READS", model / "model-", 2000)


def writing(place: Place) -> tuple[list[str | Path], Reached]:
    reached = place.slow("CHANGES", place.folder / "out.partial" / "model-")
    return [place.llama(), "--out", place.folder / "out"], reached


def syncing(place: Place) -> tuple[list[str | Path], Reached]:
    reached = place.slow("CHANGES", place.folder / "out.partial" / "model-", 1 << 40)
    return [place.llama(), "--out", place.folder / "out"], reached


def hashing_what_is_there(place: Place) -> tuple[list[str | Path], Reached]:
    """Of a `DIR.partial`, whose disk then falls silent."""
    words: list[str | Path] = ["org/sotu", "--out", place.folder / "out"]
    first = replace(place, variables={})
    reached = first.slow("CHANGES", place.folder / "out.partial" / "model-", 100_000)
    variables = environment(place.hub, place.folder, **first.variables)
    killed = subprocess.Popen([COMMAND, *map(str, words)], env=variables, text=True)
    while not reached(killed):
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    (place.folder / "seen").unlink()
    return words, place.slow("READS", place.folder / "out.partial" / "model-")


def verifying(place: Place) -> tuple[list[str | Path], Reached]:
    out = place.folder / "finished"
    subprocess.run([COMMAND, str(place.llama()), "--out", str(out), "--quiet"], check=True)
    return ["verify", out], place.slow("READS", out / "model-")


def plotting(place: Place) -> tuple[list[str | Path], Reached]:
    pictures = place.folder / "pictures"
    pictures.mkdir()
    words: list[str | Path] = ["score", place.llama(), "--plot", pictures / "scores.svg"]
    return words, place.slow("CHANGES", pictures)


PHASES: dict[str, Phase] = {
    phase.__name__.replace("_", " "): phase
    for phase in (
        silent_listing,
        dripping_listing,
        silent_handshake,
        no_answer_to_a_connection,
        silent_headers,
        silent_weights,
        dripping_weights,
        whole_weights,
        another_run_holds_the_cache,
        waiting_to_try_again,
        silent_upload,
        reading_a_tokenizer,
        tokenising,
        measuring,
        scoring_whole_projections,
        dequantising,
        reading,
        writing,
        syncing,
        hashing_what_is_there,
        verifying,
        plotting,
    )
}
