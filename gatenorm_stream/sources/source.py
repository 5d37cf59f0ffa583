"""What a checkpoint's bytes come from: a local directory or a repository on the Hub, seen the same way."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Protocol

from gatenorm_stream.folder import Folder
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.work import Progress


class Kind(Enum):
    """How a checkpoint is stored: the one discriminator for whatever differs between the two."""

    SAFETENSORS = "safetensors"
    GGUF = "gguf"


class File(Protocol):
    """A file of a source. `title` names it in messages; `identity` changes whenever its bytes do."""

    @property
    def title(self) -> str: ...

    @property
    def path(self) -> Path | None:
        """Where it is on this machine; None if it is remote."""

    @property
    def size(self) -> int: ...

    @property
    def identity(self) -> str: ...

    @property
    def state(self) -> str:
        """As `identity`, but of this very file on this machine: another inode, or a new ctime, is another file."""

    @property
    def sha256(self) -> str | None:
        """The digest of the whole file, if the source vouches for one."""

    def read(self, where: ByteRange) -> memoryview:
        """Those bytes. Raises CheckpointError if the file doesn't hold them (any more)."""

    def read_into(self, where: ByteRange, buffer: memoryview) -> None:
        """Fills `buffer`, of the length of `where`, with those bytes: for memory that is used again and again.

        Raises CheckpointError as `read` does.
        """

    def fetch(self, where: ByteRange) -> memoryview:
        """As `read`, for bytes that are needed once: a remote file does not keep them."""

    def expect(self, where: ByteRange) -> None:
        """Says that these bytes will be read soon; a local disk begins to."""

    def segments(self, where: ByteRange) -> Iterator[tuple[ByteRange, int | None]]:
        """`where` in pieces, each with a descriptor that holds it at the same offsets, or None if none does."""

    def check_unchanged(self) -> None:
        """Raises CheckpointError if the file is not what it was when it was opened."""


def read_whole(file: File) -> bytes:
    """For files that were found to be small. Raises CheckpointError as `File.read` does."""
    return bytes(file.read(ByteRange(0, file.size)))


class Source(Hashable, Protocol):
    """Each stands for itself. `directory` is None for a remote source; `connections` is how many reads should be
    under way at once.
    """

    @property
    def title(self) -> str: ...

    @property
    def revision(self) -> str | None: ...

    @property
    def directory(self) -> Path | None: ...

    @property
    def remote(self) -> bool: ...

    @property
    def connections(self) -> int: ...

    @property
    def kind(self) -> Kind: ...

    @property
    def gguf(self) -> tuple[str, ...]:
        """The GGUF files that are the model, in their order; none of another kind."""

    @property
    def keeps(self) -> bool:
        """Whether what was read once can be read again without fetching it anew."""

    def keep_in(self, folder: Folder | None) -> None:
        """From now on, what a remote source reads is kept in `folder`, and read there by a later run; without one,
        in temporary files that are gone with the process.

        `folder` is closed with the source.
        """

    def fetch_whole(self, names: Iterable[str], progress: Progress | None = None) -> bool:
        """Has these files of a remote source come to this machine for good, and the small ones that a model is used
        with. Whether they are here.

        Raises HubError, and OutputError where there is no room for them.
        """

    def names(self) -> tuple[str, ...]:
        """Relative POSIX paths of all files, sorted."""

    def apart(self) -> Mapping[str, str]:
        """What is there but is no file of the source, by name: links that are not followed, names that are none,
        each with why. Hidden ones are not told."""

    def open(self, name: str) -> File:
        """Raises CheckpointError if there is no such readable file."""

    def check_unchanged(self) -> None:
        """Raises CheckpointError if a file is not what it was when it was opened."""

    def cancel(self) -> None:
        """Makes reads that are under way end soon, with CancelledError."""

    def close(self) -> None: ...
