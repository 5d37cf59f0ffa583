"""What an output format does to a checkpoint, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from gatenorm_stream.families.family import Family
from gatenorm_stream.families.model import Model

Constants: TypeAlias = Mapping[int, bytes]
"""By layer, the vector that stands in the place of its attention: (hidden,), little-endian float32."""


@dataclass(frozen=True)
class Added:
    """A new tensor, put behind the tensor `after` in its shard.

    `values` are its bytes as they are stored, None for zeros; `dtype` is None for that of `after`. If it has the
    name of a tensor that goes, it takes its place.
    """

    name: str
    shape: tuple[int, ...]
    after: str
    values: bytes | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class Edit:
    """`remove` are tensors that go, `zero` tensors whose bytes become 0; `files` are new text files by name.

    `interleave` names tensors of heads whose rows go from two halves to pairs, with the rows of one head.
    """

    config: Mapping[str, Any]
    remove: frozenset[str] = frozenset()
    zero: frozenset[str] = frozenset()
    add: tuple[Added, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    interleave: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Obstacle:
    """Why some engines can't run the output: `field` of the source's config (or what else) stands in the way.

    `notice` marks a limit of one engine's tooling, which stops the format only if that engine is asked for.
    `way_out` is what the user can do, if it is not another format.
    """

    engines: frozenset[str]
    field: str
    reason: str
    notice: bool = False
    way_out: str | None = None


@dataclass(frozen=True)
class Limits:
    """`cautions` tell what an engine makes of a model that its user should know, though it runs."""

    obstacles: tuple[Obstacle, ...] = ()
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """`limits` and `edit` take the model, the layers whose attention goes, and what stands in its place: `edit` the
    constants, `limits` whether there are any. `removes` says that attention is absent.

    `expresses` tells whether models of a family can have this form at all; `limits` tells it of one model.
    """

    name: str
    removes: bool
    expresses: Callable[[Family], bool]
    limits: Callable[[Model, tuple[int, ...], bool], Limits]
    edit: Callable[[Model, tuple[int, ...], Constants], Edit]
