"""The source's model card: what is read of it, that nothing else is, and that a hostile one costs nothing."""

from __future__ import annotations

import subprocess
import time
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gatenorm_stream.report.card_metadata import _write_entry
from gatenorm_stream.report.source_card import LARGEST_FRONT_MATTER, NO_TEXT, READ, read_source_card
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.conftest import Run

printable = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P", "S"], include_characters=" "), min_size=1
)
values = st.one_of(printable, st.lists(printable, min_size=1, max_size=4))


def card(front: str) -> bytes:
    return f"---\n{front}\n---\n\ntext\n".encode()


@given(st.dictionaries(st.sampled_from(READ), values))
def test_what_is_written_reads_as_it_was(fields: dict[str, str | list[str]]) -> None:
    """For PyYAML, which a reader may use, and for the own reader."""
    clean = {k: [x.strip() for x in v] if isinstance(v, list) else v.strip() for k, v in fields.items()}
    clean = {k: v for k, v in clean.items() if v and (isinstance(v, str) or all(v))}
    written = "\n".join(line for key, value in clean.items() for line in _write_entry(key, value))
    assert (yaml.safe_load(written) or {}) == clean
    assert read_source_card(card(written)).fields == clean


@given(st.dictionaries(st.sampled_from(READ), values))
@example({"language": ["0 #"]})
@example({"language": ["it's # 1", 'a "b # c"', "d,#"]})
def test_what_pyyaml_writes_is_read(fields: dict[str, str | list[str]]) -> None:
    clean = {k: [x.strip() for x in v] if isinstance(v, list) else v.strip() for k, v in fields.items()}
    clean = {k: v for k, v in clean.items() if v and (isinstance(v, str) or all(v))}
    texts = (text for value in clean.values() for text in ([value] if isinstance(value, str) else value))
    assume(not any(NO_TEXT.fullmatch(text) and yaml.safe_dump(text).startswith(text) for text in texts))  # 08, 1e5
    for flow in (False, None):
        text = yaml.safe_dump(clean, allow_unicode=True, width=10**9, default_flow_style=flow).strip()
        if clean and not text.startswith("{"):
            assert read_source_card(card(text)).fields == clean


words = st.from_regex(r"[a-z][a-z0-9_]{0,8}([-./:][a-z0-9]{1,6}){0,3}", fullmatch=True)


@given(
    st.dictionaries(st.sampled_from(READ), st.one_of(words, st.lists(words, min_size=1, max_size=4)), min_size=1)
)
def test_ordinary_fields_are_written_as_pyyaml_writes_them(fields: dict[str, str | list[str]]) -> None:
    plain = {k: v for k, v in fields.items() if not {"y", "n"} & {*([v] if isinstance(v, str) else v)}}
    written = "\n".join(line for key, value in plain.items() for line in _write_entry(key, value))
    theirs = yaml.safe_dump(plain, allow_unicode=True, sort_keys=False, width=10**9)
    assert written == (theirs.strip() if plain else "")


@given(st.one_of(st.binary(), st.text("-[]{},:#'\"\\&*!|>~ \t\nabtgsnull1.").map(lambda t: card(f"tags: {t}"))))
def test_nothing_makes_it_fail(start: bytes) -> None:
    found = read_source_card(start)
    for value in found.fields.values():
        assert value
        assert all(text and text.isprintable() for text in ([value] if isinstance(value, str) else value))
    assert not any("\n" in remark for remark in found.remarks)


@pytest.mark.parametrize(
    ("front", "fields"),
    [
        ("license: mit # the usual", {"license": "mit"}),
        ('license: "a # b"', {"license": "a # b"}),
        ("license: 'it''s'", {"license": "it's"}),
        ("'license': x\nlicense: y", {"license": "y"}),
        ("language:\n  - no\n  # two\n  - 'de'", {"language": ["no", "de"]}),
        ("language: [en, 'de', \"fr\"]", {"language": ["en", "de", "fr"]}),
        ("language:\n[\n  en,\n  de,\n]", {"language": ["en", "de"]}),
        ("tags:\n- a\n- 3\n- b: c\n- null\n- d", {"tags": ["a", "d"]}),
        ("model-index:\n- name: x\n  license: no\nlicense: mit", {"license": "mit"}),
        ("extra_gated_prompt: |\n  license: no\n\n  more\nlicense: mit", {"license": "mit"}),
        ("datasets: &a [x]\nlicense: mit", {"license": "mit"}),
        ("license:\nlanguage: ''\ntags: []", {}),
    ],
)
def test_what_people_write(front: str, fields: dict[str, str | list[str]]) -> None:
    for line_break in ("\n", "\r\n", "\r"):
        found = read_source_card(card(front).replace(b"\n", line_break.encode()))
        assert (found.fields, found.remarks) == (fields, ())


@pytest.mark.parametrize(
    "front",
    [
        "license: *a",
        "license: &a mit",
        "license: !!python/object/apply:os.system ['true']",
        "license: |\n  mit",
        "license: mit\n  and more",
        "license: {a: b}",
        "license: 3",
        "license: 2026-11-27",
        'license: "\\x1b[2J"',
        "license: \N{RIGHT-TO-LEFT OVERRIDE}tim",
        "license: [a, [b]]",
        "license:\n- a\n- *a",
        "license: 'mit' x",
    ],
)
def test_what_is_in_another_form_is_left_out_and_named(front: str) -> None:
    found = read_source_card(card(f"{front}\nlibrary_name: kept"))
    assert found.fields == {"library_name": "kept"}
    (remark,) = found.remarks
    assert "license" in remark


@pytest.mark.parametrize("front", ["<<: *a", "<<: {license: x}", "base: &a\n  license: x\nother:\n  <<: *a"])
def test_merges_bring_nothing(front: str) -> None:
    assert read_source_card(card(front)).fields == {}


def test_what_has_no_metadata() -> None:
    for start in (b"", b"# Model\n", b"---\nlicense: mit\n", b"x\n---\nlicense: mit\n---\n"):
        assert read_source_card(start).fields == {}


def test_of_long_metadata_the_beginning_is_read() -> None:
    front = "license: mit\nmodel-index:\n" + "- name: x\n" * 7000 + "language: en"
    found = read_source_card(card(front)[:LARGEST_FRONT_MATTER])
    assert found.fields == {"license": "mit"}
    assert "over 64 kB" in found.remarks[0]


ALIASES = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in pairwise("abcdefghi"))
HOSTILE = {
    "aliases of aliases": ALIASES + "tags: *i\nbase_model: *i",
    "an alias of itself": "model-index: &a [*a, *a]\nlicense: mit",
    "merges of merges": "a: &a {x: 1}\n" + "".join(f"b{n}: &b{n}\n  <<: [*a, *a]\n" for n in range(1500)),
    "brackets": "tags: " + "[" * 65_000,
    "brackets and commas": "tags: [" + "[," * 32_000 + "]",
    "quotes": "tags: [" + "'," * 32_000 + "]",
    "double quotes": "tags: [" + '"a,' * 21_000 + "]",
    "backslashes": "tags: [" + '"\\' * 32_000 + "]",
    "digits": "license: " + "1_" * 32_000,
    "sexagesimals": "license: " + "1:0" * 21_000,
    "colons": "license: " + "x: " * 21_000,
    "comments": "license: x" + " #" * 32_000,
    "a field many times": "tags:\n" * 10_000,
    "items": "tags:\n" + "- a\n" * 16_000,
    "spaces": "license: " + " " * 65_000,
    "braces": "model-index: " + "{a: " * 16_000,
}


@pytest.mark.parametrize("front", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_card_costs_nothing(front: str) -> None:
    start = card(front)[:LARGEST_FRONT_MATTER]
    begun = time.process_time()
    read_source_card(start)
    assert time.process_time() - begun < 1
    tracemalloc.start()
    read_source_card(start)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_model_with_a_hostile_card_is_pruned(run: Run, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", random_tensors(llama_shapes()), llama_config())
    (source / "README.md").write_bytes(card(ALIASES + "tags: *i\nlicense: mit"))
    done: subprocess.CompletedProcess[str] = run(source, "--out", "out")
    assert done.returncode == 0
    assert "left out of the model card: tags" in done.stderr
    assert "\nlicense: mit\n" in (tmp_path / "out/README.md").read_text("utf-8")
