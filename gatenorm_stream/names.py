"""Names of files: those that a checkpoint and an output have, and which of a stranger's may be taken over."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

from gatenorm_stream.errors import CheckpointError

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
CARD = "README.md"
PICTURE = "gatenorm.svg"
RECORD = "gatenorm.json"
OWN_PREFIX = ".gatenorm-"
"""Names that begin so are those of an unfinished output's own books."""
LONGEST_PART = 255
"""Bytes, between slashes."""
LONGEST_NAME = 1024
"""Characters, with the folders in it."""
DEEPEST = 32
"""Folders in folders; a name in an output has a few."""
SUFFIX = ".gguf"
SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")

_SECRET = re.compile(
    r".*\.(pem|key|p12|pfx|pkcs12|jks|keystore|ppk|kdbx|asc|gpg|pgp|der|crt|cer|ovpn|env|rdp)|"
    r"id_(rsa|dsa|ecdsa|ed25519)([-_.].*)?|"
    r"(.*[-_.])?(credentials?|secrets?|passwords?|passwd|api[-_]?keys?|access[-_]?keys?|private[-_]?keys?)([-_.].*)?|"
    r"(.*[-_.])?(hf|hub|hugging[-_]?face|auth|access|api|bearer|refresh|git|github|gh|wandb|aws)[-_]?tokens?([-_.].*)?|"
    r"tokens?(\.(txt|json|ya?ml|cfg|ini|toml))?|stored_tokens|"
    r"_?netrc|_?pypirc|env|(service[-_]?account|kubeconfig|htpasswd|shadow|known_hosts|authorized_keys).*"
)


def is_safe(name: str) -> bool:
    """Whether a file of this name, taken from a stranger's list, stays in the directory that it is written to,
    leaves our own files there alone, and can be printed. Of a/b, ./a/b and a//b, which are one, the first is safe.
    File systems have room for it.
    """
    path = PurePosixPath(name)
    try:
        longest = max((len(part.encode("utf-8")) for part in path.parts), default=0)
    except UnicodeEncodeError:
        return False
    return (
        0 < longest <= LONGEST_PART
        and len(name) <= LONGEST_NAME
        and len(path.parts) <= DEEPEST
        and str(path) == name
        and not path.is_absolute()
        and ".." not in path.parts
        and not any(c in "\\:" or unicodedata.category(c) == "Cc" for c in name)
        and not folded(path.parts[0]).startswith(OWN_PREFIX)
    )


def utf8(name: str) -> str:
    """With a question mark for each byte of a name on disk that is no UTF-8, which no text could hold."""
    return name.encode("utf-8", "replace").decode("utf-8")


def looks_secret(name: str) -> bool:
    """Whether a file of this name may hold a key, a token or a password, by what such files are called."""
    return _SECRET.fullmatch(PurePosixPath(name).name.casefold()) is not None


def is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def check_names(names: Iterable[str], title: str) -> None:
    """Raises CheckpointError if one of `names` is not safe, or two would be the same file on some file system."""
    taken: dict[str, str] = {}
    for name in names:
        if not is_safe(name):
            raise CheckpointError(f"{title} holds a file called {name!r}, which is no name for a file of an output")
        other = taken.setdefault(folded(name), name)
        if other != name:
            raise CheckpointError(
                f"{other} and {name} would be one file where upper and lower case are the same; rename or delete "
                f"that of {title}"
            )
    for name in taken.values():
        for folder in PurePosixPath(folded(name)).parents:
            if str(folder) in taken:
                raise CheckpointError(f"{title} holds {name}, but {taken[str(folder)]} is a file; rename it")


def folded(name: str) -> str:
    """Equal for names that are the same to a file system without regard to case or Unicode form, as macOS has."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def split_names(name: str) -> tuple[str, ...]:
    """All files of the model that the GGUF file `name` belongs to, in order."""
    match = SPLIT.fullmatch(name)
    if match is None:
        return (name,)
    stem, count = match[1], int(match[3])
    return tuple(f"{stem}-{number:05d}-of-{count:05d}{SUFFIX}" for number in range(1, count + 1))
