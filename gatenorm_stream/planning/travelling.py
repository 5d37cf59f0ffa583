"""Which files of a source travel into an output beside the weights: the one list, by what such files are called.

What a model is used with travels: tokenizer, generation, processor, template, licence, the modules that
sentence-transformers reads, and the code that its configs name. All else stays, and is listed. `--also` adds files;
what holds secrets, runs when it is loaded, or tells of somebody's training never travels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.names import ADAPTER, folded, is_hidden, is_safe, looks_secret
from gatenorm_stream.spelling import similar

TOKENIZER = re.compile(
    r"tokenizer(_config)?\.json|tokenizer\.model(\.v\d+(m\d+)?)?|tekken\.json|special_tokens_map\.json|"
    r"added_tokens\.json|vocab\.(json|txt|bpe|model|spm)|vocab-(src|tgt)\.json|[\w.-]*\.tiktoken|tiktoken\.model|"
    r"merges\.(txt|model)|bpe\.codes|bpe\.vocab|spiece\.model|(source|target|spm)\.(spm|model)|"
    r"sentencepiece(\.bpe)?\.model|sp\.model|spm\.model|ice_text\.model|dict\.txt|entity_vocab\.json|emoji\.json|"
    r"normalizer\.json|rwkv_vocab_v\d+\.txt",
    re.ASCII,
)
VOCABULARY = re.compile(
    r"tokenizer\.json|.*\.(tiktoken|spm)|.*(tokenizer|spiece|sentencepiece|spm|sp|ice_text|bpe|vocab|tiktoken)"
    r"[\w.-]*\.model(\.v\d+(m\d+)?)?|tekken\.json|vocab.*\.(json|txt|bpe)|rwkv_vocab.*"
)
"""One of these is a tokenizer by itself, or most of one."""
OTHERS = re.compile(
    r"generation_config\.json|[\w.-]*\.jinja|chat_template\.json|(additional_)?chat_templates/[\w.-]+\.jinja|"
    r"((image_|video_|audio_)?(pre)?processor|feature_extractor|audio_tokenizer)(_config)?\.json|"
    r"(quantize|quant|hf_quant|quantization)_config\.json|"
    r"modules\.json|config_sentence_transformers\.json|sentence_\w+_config\.json|router_config\.json",
    re.ASCII,
)
LEGAL = re.compile(
    r"licen[cs]es/[^/]+|([^/]*[-_. ])?(licen[cs]es?|copying|notices?|patents|copyright|authors|citation|"
    r"(acceptable[-_ ]?)?(use|usage)[-_ ]?policy|terms([-_ ]of[-_ ](use|service))?)([-_. ][^/]*)?"
)
LEGAL_KINDS = frozenset({"", ".txt", ".md", ".rst", ".pdf", ".html", ".cff", ".0", ".1"})
MODULE_KINDS = frozenset({".json", ".txt", ".safetensors", ".model", ".jinja", ".tiktoken", ".spm", ".md"})
"""Of what lies in a folder that modules.json names."""
EXECUTED = (
    *(".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".npy", ".npz"),
    *(".so", ".dll", ".dylib", ".pyd", ".a", ".o", ".exe", ".whl", ".egg", ".jar", ".class", ".pyc", ".pyo"),
)
"""Pickles, which run code when they are loaded, and libraries."""
RUN_FOLDERS = frozenset(
    {"__pycache__", "runs", "wandb", "mlruns", "logs", "lightning_logs", "tensorboard", "hooks"}
)
RUN_LOG = re.compile(
    r"events\.out\.tfevents.*|.*\.log(\.\d+)?|trainer_state\.json|training_args\..*|nohup\.out|slurm.*\.out"
)
RUN_BY_NAME = re.compile(
    r"(setup|conftest|sitecustomize|usercustomize)\.py|makefile|dockerfile|.*\.(sh|bat|cmd|ps1)"
)


@dataclass(frozen=True)
class Needs:
    """What a model's own files name: `modules` are folders, `code` files of Python."""

    modules: tuple[str, ...] = ()
    code: tuple[str, ...] = ()


@dataclass(frozen=True)
class Travelling:
    """`left_out` has, for each name that stays, why, where that is not plain."""

    names: tuple[str, ...]
    left_out: Mapping[str, str]


def travelling(names: Iterable[str], needs: Needs, also: Iterable[str], written: Iterable[str]) -> Travelling:
    """Divides `names`, but for those that are `written` in any case.

    Two names that differ only in case or Unicode form are one file somewhere: then the first stays in, and what is
    written comes before all. Raises CheckpointError for a name in `also` that is not there, or never travels.
    """
    written, also = set(written), list(also)
    names = sorted(set(names) - written)
    for name in also:
        if name in written:
            raise CheckpointError(f"--also {name}: the output has its own; leave that out")
        _check_wanted(name, names)
    taken = {folded(name): name for name in written}
    chosen, left_out = [], dict[str, str]()
    for name in sorted(names, key=lambda name: (name not in also, name)):
        if why := never(name):
            left_out[name] = why
        elif name not in also and not needed(name, needs):
            left_out[name] = ""
        elif (other := taken.get(folded(name))) and name in also:
            raise CheckpointError(
                f"--also {name}: the output has {other}, which is the same file where case does not matter; leave "
                "one out"
            )
        elif other:
            left_out[name] = f"one file with {other} where case does not matter"
        else:
            taken[folded(name)] = name
            chosen.append(name)
    return Travelling(tuple(sorted(chosen)), dict(sorted(left_out.items())))


def never(name: str) -> str:
    """Why a file of this name never travels; empty if it may."""
    path = PurePosixPath(name)
    base = path.name.casefold()
    if is_hidden(name):
        return "hidden"
    if looks_secret(name):
        return "may hold a secret"
    if base.endswith(EXECUTED) or re.search(r"\.so\.\d", base):
        return "runs code when it is loaded"
    if RUN_BY_NAME.fullmatch(base):
        return "runs by its name alone"
    if base == ADAPTER:
        return "has another model loaded in this one's place"
    if path.parts[0].casefold() == "custom_generate":
        return "takes the place of generate() wherever remote code is trusted"
    if RUN_LOG.fullmatch(base) or any(part.casefold() in RUN_FOLDERS for part in path.parts[:-1]):
        return "tells of a run"
    return ""


def needed(name: str, needs: Needs) -> bool:
    """Whether a file of this name is one that a model is used with."""
    path = PurePosixPath(name)
    if TOKENIZER.fullmatch(name) or OTHERS.fullmatch(name) or name in needs.code:
        return True
    if LEGAL.fullmatch(name.casefold()) and path.suffix.lower() in LEGAL_KINDS:
        return True
    return any(path.is_relative_to(folder) for folder in needs.modules) and path.suffix.lower() in MODULE_KINDS


def missing(names: Iterable[str], needs: Needs, config: Mapping[str, object]) -> tuple[str, ...]:
    """What the output will lack since the source does: lines for people."""
    names = set(names)
    lines = []
    if not any(VOCABULARY.fullmatch(name) for name in names):
        lines.append("no tokenizer")
    lines += (f"no {name}, which its configs name" for name in needs.code if name not in names)
    for folder in needs.modules:
        within = [name for name in names if PurePosixPath(name).is_relative_to(folder)]
        if not within:
            lines.append(f"nothing in {folder}, which modules.json names")
        elif not any(n.endswith(".safetensors") for n in within):
            pickles = (n for n in within if n.endswith(EXECUTED))
            lines += [f"{n} is a pickle and stays: save that module as safetensors" for n in pickles]
    many = any(isinstance(config.get(key), dict) for key in ("vision_config", "audio_config"))
    if many and not any(n.endswith(("processor_config.json", "params.json")) for n in names):
        lines.append("no preprocessor_config.json")
    return tuple(lines)


def _check_wanted(name: str, names: list[str]) -> None:
    if is_safe(name) and (why := never(name)):
        raise CheckpointError(f"--also {name}: such a file never travels ({why}); leave it out")
    if name not in names:
        meant = similar(name, names)
        raise CheckpointError(
            f"--also {name}: the source has no such file" + (f"; did you mean {meant}?" if meant else "")
        )
