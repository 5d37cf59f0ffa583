"""The text that the decoders of benchmarks/quality are trained and measured on, made from pinned packages.

Program code and manuals, fetched by name and version with pip and apt (Debian 12), each checked by its SHA-256.
`sources.csv` says which package serves which split; whole packages, so that held-out text comes from other
sources than the training text. No package is installed and nothing in it is run.

    python -m benchmarks.quality.corpus --fetched .corpus/packages --out .corpus/tokens

writes tokens.json, tokenizer.json and, for each split, little-endian uint16 token ids in xz files.
"""

import argparse
import csv
import gzip
import hashlib
import html
import io
import json
import lzma
import random
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SOURCES = Path(__file__).with_name("sources.csv")
SPLITS = ("heldout", "validation", "train")  # in the order in which near-duplicates are looked for
VOCABULARY = 8192
END = "<end>"  # stands after every document; id 0
CLOSERS = (")", "]", "}")
PACKAGE_BYTES = 2_600_000  # of text, at most, so that no package rules
SMALL_SPLIT_BYTES = 400_000  # of text from each held-out or validation package
DOCUMENT_BYTES = 32_768
SHORTEST = 400
LONG_LINE = 25  # characters; shorter lines say nothing about copying
SEEN_BEFORE = {"heldout": 0.3, "validation": 0.3, "train": 0.3}
SEEN_IN_HELD_OUT = 0.1  # share of a training document's long lines that may stand in held-out or validation text
TOKENIZER_SAMPLE = 40_000_000  # bytes
PRESET = 9  # of xz
FILES = 12  # the training tokens, so that they unpack in parallel
WANTED = (
    (r"_sources/.*\.(txt|rst|gz)$", r"\.rst(\.gz)?$"),
    (r"\.(page|x?html)$", r"\.pod$", r"\.txt$", r"/man/man\d/.*\.gz$", r"\.el(\.gz)?$", r"\.dict\.dz$"),
    (r"\.info(-\d+)?\.gz$", r"/fortunes/[a-z-]+$"),
)  # of a Debian package, the first row that any file matches
UNWANTED = re.compile(
    r"changelog|copyright|NEWS|genindex|/search\.html|py-modindex"
    r"|/share/help/(?!C/)|/debian-handbook/html/(?!en-US/)"  # translations
)


@dataclass(frozen=True)
class Source:
    kind: str  # pip or apt
    name: str
    version: str
    split: str
    sha256: str


@dataclass(frozen=True)
class Document:
    source: str
    text: str


def sources() -> list[Source]:
    with open(SOURCES, newline="") as file:
        return [Source(**row) for row in csv.DictReader(file)]


def package(source: Source, folder: Path) -> Path | None:
    """The package's file in `folder`."""

    def names(path: Path) -> tuple[str, str]:
        name, version = path.name.split("-" if path.suffix == ".whl" else "_")[:2]
        return name.lower().replace("_", "-"), version.replace("%3a", ":")

    suffix = {"pip": "*.whl", "apt": "*.deb"}[source.kind]
    return next((p for p in folder.glob(suffix) if names(p) == (source.name, source.version)), None)


def fetch(source: Source, folder: Path) -> Path:
    """The package's file, from `folder` if it is there. Raises ValueError if its digest is another."""
    if source.kind == "pip":
        python = ("--python-version=3.12", "--implementation=cp")
        systems = [f"--platform=manylinux{tag}_x86_64" for tag in ("_2_28", "_2_27", "_2_24", "_2_17", "2014")]
        words = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary=:all:",
            *python,
            *systems,
        ]
        words += ["-d", ".", f"{source.name}=={source.version}"]
    else:
        words = ["apt-get", "download", "-q", f"{source.name}={source.version}"]
    if not package(source, folder):
        subprocess.run(words, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    path = package(source, folder)
    if not path:
        raise ValueError(f"{' '.join(words)} brought no file of that name")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != source.sha256:
        raise ValueError(f"{path.name}: SHA-256 is {digest}, sources.csv says {source.sha256}")
    return path


def wheel_files(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as wheel:
        for name in sorted(wheel.namelist()):
            if name.endswith((".py", ".rst", ".md")) and ".dist-info/" not in name:
                yield name, wheel.read(name)


def deb_files(path: Path) -> Iterator[tuple[str, bytes]]:
    unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", path], check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as tar:
        members = {m.name: m for m in tar if m.isfile() and not UNWANTED.search(m.name)}
        rows = ([n for n in sorted(members) if any(re.search(p, n) for p in patterns)] for patterns in WANTED)
        for name in next(filter(None, rows)):
            content = tar.extractfile(members[name]).read()
            yield name, gzip.decompress(content) if name.endswith((".gz", ".dz")) else content


def plain(name: str, content: str) -> str:
    """Text without markup or, in code, without the licence at its head."""
    if re.search(r"\.(page|x?html)$", name):
        content = re.sub(r"(?is)<(script|style|head|nav|footer)\b.*?</\1>|<!--.*?-->", " ", content)
        content = html.unescape(re.sub(r"<[^>]*>", "", content))
    if name.endswith(".py"):
        content = re.sub(r"\A(\s*#[^\n]*\n)+", "", content)
    content = re.sub(r"[^\S\n]+\n", "\n", content.replace("\r\n", "\n").expandtabs(8))
    return re.sub(r"\n{3,}", "\n\n", content).strip() + "\n"


def readable(text: str) -> bool:
    """Whether it looks like English or code rather than a table, another language or machine output."""
    ascii_share = sum(map(str.isascii, text[:8192])) / len(text[:8192])
    letters = sum(map(str.isalpha, text[:8192])) / len(text[:8192])
    return ascii_share > 0.98 and letters > 0.5 and max(map(len, text.splitlines())) < 2000


def pieces(text: str) -> Iterator[str]:
    """Parts of at most DOCUMENT_BYTES characters, cut at line ends."""
    while len(text) > DOCUMENT_BYTES:
        at = text.rfind("\n", 0, DOCUMENT_BYTES) + 1 or DOCUMENT_BYTES
        yield text[:at]
        text = text[at:]
    yield text


def documents(source: Source, path: Path) -> list[Document]:
    """The package's documents in a random order, up to its limit of bytes."""
    files = wheel_files(path) if source.kind == "pip" else deb_files(path)
    found = []
    for name, content in files:
        text = plain(name, content.decode("utf-8", "replace"))
        found += [part for part in pieces(text) if len(part) >= SHORTEST and readable(part)]
    random.Random(source.name).shuffle(found)
    limit = PACKAGE_BYTES if source.split == "train" else 4 * SMALL_SPLIT_BYTES
    kept, total = [], 0
    for text in found:
        if total + len(text) > limit:
            break
        kept.append(Document(source.name, text))
        total += len(text)
    return kept


def long_lines(text: str) -> set[int]:
    return {hash(line) for line in map(str.strip, text.splitlines()) if len(line) >= LONG_LINE}


def without_near_duplicates(splits: dict[str, list[Document]]) -> dict[str, list[Document]]:
    """Each split without documents of whose long lines too many stood in earlier ones."""
    seen: set[int] = set()
    held: set[int] = set()
    kept: dict[str, list[Document]] = {}
    for split in SPLITS:
        kept[split], sizes = [], {}
        for document in splits[split]:
            lines = long_lines(document.text)
            if not lines or len(lines & seen) > SEEN_BEFORE[split] * len(lines):
                continue
            if split == "train" and len(lines & held) > SEEN_IN_HELD_OUT * len(lines):
                continue
            size = sizes.get(document.source, 0)
            if split != "train" and size > SMALL_SPLIT_BYTES:
                continue
            sizes[document.source] = size + len(document.text)
            seen |= lines
            kept[split].append(document)
        if split != "train":
            held |= seen
    return kept


def sequences(text: str, words: int = 20) -> Iterator[int]:
    parts = text.split()
    return (hash(tuple(parts[i : i + words])) for i in range(len(parts) - words + 1))


def shared_share(held_out: list[Document], training: list[Document]) -> float:
    """The share of the 20-word sequences of held-out text that also stand in training text."""
    wanted = {s for d in held_out for s in sequences(d.text)}
    found: set[int] = set()
    for document in training:
        found.update(wanted.intersection(sequences(document.text)))
    return len(found) / len(wanted)


def learn_tokenizer(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def token_ids(tokenizer: Tokenizer, documents: list[Document]) -> np.ndarray:
    end = tokenizer.token_to_id(END)
    parts = []
    for start in range(0, len(documents), 512):
        encoded = tokenizer.encode_batch([d.text for d in documents[start : start + 512]], add_special_tokens=False)
        parts += [np.array([*one.ids, end], dtype="<u2") for one in encoded]
    return np.concatenate(parts)


def write(out: Path, name: str, ids: np.ndarray) -> dict[str, object]:
    packed = lzma.compress(ids.tobytes(), preset=PRESET)
    (out / f"{name}.xz").write_bytes(packed)
    return {
        "file": f"{name}.xz",
        "tokens": len(ids),
        "bytes": len(packed),
        "sha256": hashlib.sha256(ids.tobytes()).hexdigest(),
    }


def make(fetched: Path, out: Path) -> None:
    listed = sources()
    for folder in (fetched, out):
        folder.mkdir(parents=True, exist_ok=True)
    paths = [fetch(source, fetched) for source in listed]
    with ProcessPoolExecutor(2) as pool:
        found = list(pool.map(documents, listed, paths))
    tokenise(listed, found, out)


def tokenise(listed: list[Source], found: list[list[Document]], out: Path) -> None:
    """`found`: the documents of each source."""
    splits: dict[str, list[Document]] = {split: [] for split in SPLITS}
    for source, texts in zip(listed, found, strict=True):
        splits[source.split] += texts
    for texts in splits.values():
        random.Random(0).shuffle(texts)
    kept = without_near_duplicates(splits)
    for source in listed:
        before, after = (
            sum(len(d.text) for d in s[source.split] if d.source == source.name) for s in (splits, kept)
        )
        print(f"{source.split:10} {source.name:24} {before / 1e6:7.2f} MB, {after / 1e6:7.2f} kept", flush=True)

    texts = [d.text for d in kept["train"]]
    sample = texts[: max(1, int(len(texts) * min(1.0, TOKENIZER_SAMPLE / sum(map(len, texts)))))]
    tokenizer = learn_tokenizer(sample)
    tokenizer.save(str(out / "tokenizer.json"))
    ids = {split: token_ids(tokenizer, kept[split]) for split in SPLITS}
    parts = [("heldout", ids["heldout"]), ("validation", ids["validation"])]
    parts += [(f"train-{i:02}", part) for i, part in enumerate(np.array_split(ids["train"], FILES))]
    with ProcessPoolExecutor(2) as pool:
        files = list(pool.map(write, [out] * len(parts), *zip(*parts, strict=True)))
    told = {
        "vocabulary": tokenizer.get_vocab_size(),
        "end": tokenizer.token_to_id(END),
        "closers": [tokenizer.token_to_id(c) for c in CLOSERS],
        "characters": {split: sum(len(d.text) for d in kept[split]) for split in SPLITS},
        "documents": {split: len(kept[split]) for split in SPLITS},
        "documents_before": {split: len(splits[split]) for split in SPLITS},
        "heldout_20_word_sequences_in_train": round(shared_share(kept["heldout"], kept["train"]), 4),
        "packages": {split: [s.name for s in listed if s.split == split] for split in SPLITS},
        "files": files,
    }
    (out / "tokens.json").write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fetched", type=Path, required=True, help="folder for the packages' files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    make(args.fetched, args.out)


if __name__ == "__main__":
    main()
