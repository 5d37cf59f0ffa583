"""What a file holds that should hold weights or a config, told by how it begins: in words, with what to do."""

from __future__ import annotations

LFS = b"version https://git-lfs.github.com/spec/"
MOST_POINTER_BYTES = 1024
"""Git LFS writes no longer ones."""
NO_MODEL = "the download went wrong: download it again, logged in if the model asks for that"
PACKED = "is a compressed archive; unpack it first"
PICKLE = (
    "holds a pickle of torch; save the model as safetensors first (transformers: "
    "from_pretrained(...).save_pretrained(...))"
)
OLD = "is of a form older than GGUF; convert the original model with llama.cpp's convert_hf_to_gguf.py"

BEGINNINGS = (
    (LFS, "is a Git LFS pointer, not the file itself; run `git lfs pull` in that clone, or download the file"),
    (b"version https://hawser.github.com/spec/", "is a Git LFS pointer, not the file itself; run `git lfs pull`"),
    (b"/annex/objects/", "is a git-annex pointer, not the file itself; run `git annex get` on it"),
    (b"# xet version", "is a Xet pointer, not the file itself; download the file"),
    (b"oid sha256:", "is a part of a Git LFS pointer, not the file itself; run `git lfs pull`"),
    (b"<!doctype html", f"is a web page: {NO_MODEL}"),
    (b"<html", f"is a web page: {NO_MODEL}"),
    (b"<?xml", f"is a server's answer in XML: {NO_MODEL}"),
    (b'{"error"', f"is a server's refusal: {NO_MODEL}"),
    (b"entry not found", f"is a server's refusal: {NO_MODEL}"),
    (b"repository not found", f"is a server's refusal: {NO_MODEL}"),
    (b"invalid username or password", f"is a server's refusal: {NO_MODEL}"),
    (b"access to model", f"is a server's refusal: {NO_MODEL}"),
    (b"PK\x03\x04", PICKLE),
    (b"\x80\x02", PICKLE),
    (b"\x1f\x8b", PACKED),
    (b"\xfd7zXZ", PACKED),
    (b"7z\xbc\xaf", PACKED),
    (b"\x28\xb5\x2f\xfd", PACKED),
    (b"BZh", PACKED),
    (b"lmgg", OLD),
    (b"fmgg", OLD),
    (b"tjgg", OLD),
    (b"\x89HDF", "is a file of Keras (HDF5); save the model as safetensors first"),
    (bytes(16), "begins with zeros: it was made room for and never downloaded; download it again"),
)


def in_words(begin: bytes) -> str | None:
    """None if these first bytes of a file are of no kind that is known here. Text is known in either case."""
    if not begin:
        return "is empty; download it again"
    text = begin[:64].lstrip().lower()
    return next((words for known, words in BEGINNINGS if begin.startswith(known) or text.startswith(known)), None)
