"""A stranger's names, references, addresses and headers, given to what judges them."""

from __future__ import annotations

import json
import random
import re
import unicodedata
from contextlib import suppress
from pathlib import Path

from gatenorm_stream.checkpoint.foreign_code import without_foreign_code
from gatenorm_stream.checkpoint.json_text import parse_json
from gatenorm_stream.cli.options import chosen
from gatenorm_stream.cli.usage import UsageProblem
from gatenorm_stream.errors import GateNormError
from gatenorm_stream.names import is_safe
from gatenorm_stream.planning.travelling import Needs, travelling
from gatenorm_stream.printable import as_code, markdown, printable
from gatenorm_stream.scoring.cluster import check_address
from gatenorm_stream.sources.hub.address import hub_address
from gatenorm_stream.sources.hub.guard import check_step, origin, without_password
from gatenorm_stream.sources.hub.retry import RESETS, wait_told
from tests.fuzz.mutate import mutate
from tests.fuzz.prunes import FOREIGN, SECRETS, check_code
from tests.fuzz.target import Target
from tests.fuzz.watch import FindingError, Watch

ODD = (
    "\x1b[2J",
    "\u202e",
    "\u200b",
    "\x9b1m",
    "\udcff",
    "[/b]",
    "`",
    "<b>",
    "|",
    "\n",
    "e\u0301",
    "\U000e0041",
    "\\",
    ":",
)
NAMES = (
    *(
        "config.json",
        "tokenizer.json",
        "LICENSE",
        "sub/tokenizer.json",
        "1_Pooling/config.json",
        "chat_template.jinja",
    ),
    *(
        "README.md",
        "modeling_own.py",
        "notes.txt",
        "./config.json",
        "config.json/",
        "a//b",
        "../x",
        "/etc/passwd",
        "",
    ),
    *(
        ".gatenorm-journal",
        "gatenorm.json",
        "model.safetensors",
        "Tokenizer.JSON",
        "tokenizer_config.json",
        *SECRETS,
    ),
)
_PASSWORD = re.compile(r"[^/?#]*/*me:secret@")
_LOOPBACK = re.compile(r"(tcp://)?(\[[0:]*(1|ffff:127[0-9a-f.:]*)\]|127\.|localhost)", re.IGNORECASE)
_NEVER = frozenset(name.lower() for name in SECRETS if "/" not in name)
NEEDS = Needs(("1_Pooling", "wandb"), ("modeling_own.py", "custom_generate/generate.py"))
CODED = tuple(
    json.dumps(value).encode()
    for value in (
        {"auto_map": {"AutoTokenizer": [FOREIGN, "own.A"], "AutoConfig": "own.C"}, "a": [{"auto_map": FOREIGN}]},
        {"custom_pipelines": {"x": {"impl": FOREIGN}, "y": {"impl": "own.Y"}}, "custom_generate": "evil/repo"},
        {"attn_implementation": {"text_config": "evil/repo@v1"}, "model_args": {"trust_remote_code": True}},
    )
)
ADDRESSES = (
    *(b"org/name@main:x.gguf", b"hf://org/name/x.gguf", b"https://huggingface.co/org/name/blob/main/x.gguf"),
    *(b"tcp://127.0.0.1:8786", b"tls://host:1", b"[::1]:8786", b"https://me:secret@hub.org/a@b", b"3,7-9", b"0.2"),
    *(b"120", b"Fri, 31 Dec 2027 23:59:59 GMT", b'"api";r=0;t=40', b"limit=5, remaining=0, reset=40"),
)


class Texts:
    def __init__(self, folder: Path, watch: Watch) -> None:
        self.watch = watch
        for case in (b"a", *ADDRESSES):  # imports what is imported late
            _judge_address(case)

    def targets(self) -> tuple[Target, ...]:
        return (
            Target("names", 0.16, self.names, _names),
            Target("foreign code", 0.12, self.foreign_code, lambda rng: mutate(rng, rng.choice(CODED), CODED)),
            Target("addresses", 0.1, self.address, lambda rng: mutate(rng, rng.choice(ADDRESSES), ADDRESSES)),
        )

    def names(self, data: bytes) -> None:
        self.watch.permit()
        self.watch.case(lambda: _judge_names(data.decode("utf-8", "surrogateescape").split("\0")))

    def foreign_code(self, data: bytes) -> None:
        self.watch.permit()
        self.watch.case(lambda: _judge_code(data))

    def address(self, data: bytes) -> None:
        self.watch.permit()
        self.watch.case(lambda: _judge_address(data))


def _names(rng: random.Random) -> bytes:
    names = [rng.choice(NAMES) for _ in range(rng.randrange(1, 6))]
    for n, name in enumerate(names):
        if rng.randrange(2):
            at = rng.randrange(len(name) + 1)
            names[n] = name[:at] + rng.choice((*ODD, rng.choice(NAMES), chr(rng.randrange(0xD800)))) + name[at:]
        if not rng.randrange(4):
            names[n] = rng.choice((str.upper, str.title, str.swapcase))(names[n])
    return "\0".join(names).encode("utf-8", "surrogateescape")


def _judge_names(names: list[str]) -> None:
    for name in names:
        for text in (printable(name), markdown(name), as_code(name)):
            if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") for c in text):
                raise FindingError(f"{text!r} holds what is not seen")
        if any(f"{mark}" in markdown(name).replace("\\\\", "").replace(f"\\{mark}", "") for mark in "`<>[]"):
            raise FindingError(f"{markdown(name)!r} is markup")
    safe = [name for name in names if is_safe(name)]
    if any(name.startswith(("/", "./")) or ".." in name.split("/") for name in safe):
        raise FindingError(f"{safe!r} may be taken over")
    found = travelling(safe, NEEDS, [name for name in safe[:1] if len(name) % 2], ["config.json", "README.md"])
    for name in found.names:
        base = name.rpartition("/")[2].lower()
        if name.startswith(".") or "/." in name or base in _NEVER:
            raise FindingError(f"{name!r} travels")
    if len({unicodedata.normalize("NFC", name).casefold() for name in found.names}) < len(found.names):
        raise FindingError(f"{found.names!r} are one file somewhere")


def _judge_code(data: bytes) -> None:
    try:
        value = parse_json(data)
    except ValueError:
        return
    cleaned = without_foreign_code(value).value
    if without_foreign_code(cleaned).taken_out:
        raise FindingError("once is not enough")
    check_code(json.dumps(cleaned).encode())


def _judge_address(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    with suppress(GateNormError):
        check_address(text, insecure=False)
        if not text.startswith("tls:") and not _LOOPBACK.match(text):
            raise FindingError(f"{text!r} is taken for this machine's")
    with suppress(UsageProblem):
        chosen(None, None, text, None, None, 0)
    if "\0" not in text and len(text) < 200:
        with suppress(GateNormError):
            hub_address(text)
    with suppress(ValueError):
        origin(text)
    with suppress(GateNormError, ValueError):
        check_step("https://hub.test", text)
        if not text.lower().lstrip("\x00 \t\r\n").startswith("https:"):
            raise FindingError(f"{text!r} follows https")
    if _PASSWORD.match(text) and text.count("me:secret@") == 1 and "me:secret@" in without_password(text):
        raise FindingError(f"{without_password(text)!r} shows a password")
    for name in ("retry-after", "ratelimit", *RESETS):
        for status in (200, 429):
            told = wait_told(status, {name: text})
            if told is not None and not 0 <= told < 1e12:
                raise FindingError(f"{text!r} asks to wait {told}")
