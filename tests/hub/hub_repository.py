"""What a repository of the stand-in Hub holds: commits, branches, files and their digests."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

LFS_PATTERNS = ("*.safetensors", "*.bin", "*.gguf", "*.pt", "*.pth", "*.h5", "*.onnx", "*.model", "*.msgpack")
LFS_SIZE = 10_000_000  # the Hub takes no larger file outside LFS


@functools.cache
def _sha256(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class File:
    """One file of one commit."""

    name: str
    path: Path
    known_sha256: str | None = None

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    @property
    def is_lfs(self) -> bool:
        """Kept by the storage host; the others are in git and the Hub answers them itself."""
        return self.size > LFS_SIZE or any(fnmatch(PurePosixPath(self.name).name, p) for p in LFS_PATTERNS)

    @property
    def sha256(self) -> str:
        """Computed when first asked for, once as long as the file stays as it is."""
        return self.known_sha256 or _sha256(self.path, self.size, self.path.stat().st_mtime_ns)

    @property
    def blob(self) -> str:
        """The id of the git blob, which is a pointer file for LFS."""
        if self.is_lfs:
            content = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n"
            data = content.encode()
        else:
            data = self.path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def xet_hash(self) -> str:
        """Not the true one, which depends on how Xet cuts the file; of the same form."""
        return hashlib.sha256(b"xet" + self.sha256.encode()).hexdigest()

    @property
    def storage_etag(self) -> str:
        """An opaque one, as the real storage hosts give: it is not the sha256 in X-Linked-Etag."""
        return f"{hashlib.md5(self.sha256.encode()).hexdigest()}-{self.size // 16_000_000 + 1}"


@dataclass
class Repository:
    """A folder as the only commit, or several commits with branches and tags that point at them.

    `digests` gives the sha256 of files by name; with `hashed=False` every other one is made up, so that
    no file is read only to hash it. `gated` means that access has to be granted, `private` that outsiders
    may not know of the repository. `xet` adds what the Hub says of files kept by Xet.
    """

    folder: Path | None = None
    commits: dict[str, Path] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    xet: bool = False
    hashed: bool = True
    digests: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.folder:
            listing = "".join(f"{file.name} {file.size}\n" for file in self._files(self.folder))
            commit = hashlib.sha1(f"{self.folder.name}\n{listing}".encode()).hexdigest()
            self.commits = {commit: self.folder, **self.commits}
        if "main" not in self.refs:
            self.refs = {"main": next(iter(self.commits)), **self.refs}

    @property
    def commit(self) -> str:
        """Where the branch main stands."""
        return self.refs["main"]

    def resolve(self, revision: str) -> str | None:
        """The commit of a branch, a tag or a commit id."""
        return self.refs.get(revision) or (revision if revision in self.commits else None)

    def files(self, commit: str) -> list[File]:
        return list(self._files(self.commits[commit]))

    def file(self, commit: str, name: str) -> File | None:
        path = self.commits[commit] / name
        if ".." in PurePosixPath(name).parts or name.startswith("/") or not path.is_file():
            return None
        return self._file(name, path)

    def _files(self, folder: Path) -> Iterator[File]:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") for part in name.parts[:-1]):
                yield self._file(name.as_posix(), path)

    def _file(self, name: str, path: Path) -> File:
        digest = self.digests.get(name)
        if digest is None and not self.hashed:
            digest = hashlib.sha256(f"{name} {path.stat().st_size}".encode()).hexdigest()
        return File(name, path, digest)
