"""A stranger's names and texts, as people get to see them: in a terminal, in Markdown, in pictures."""

from __future__ import annotations

import io
import json
import logging
import sys
import unicodedata
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gatenorm_stream
from gatenorm_stream.cli.say import say_json
from gatenorm_stream.cli.streams import hush_libraries
from gatenorm_stream.errors import GateNormError, VerificationError
from gatenorm_stream.printable import as_code, markdown, printable
from gatenorm_stream.report.progress import progress_meter
from gatenorm_stream.writing.shared_record import without_paths
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.conftest import Run

SHOWN = {
    "plain": "plain",
    "naïve 模型 🙂": "naïve 模型 🙂",
    "\x1b[2Jx": "\\x1b[2Jx",
    "\x9b31m": "\\x9b31m",
    "a\u202eb": "a\\u202eb",
    "a\u2066b": "a\\u2066b",
    "a\u200bb\ufeff": "a\\u200bb\\ufeff",
    "a\nb\r": "a\\nb\\r",
    "a\u2028b": "a\\u2028b",
    "a\ud800": "a\\ud800",
    "\U000e0041": "\\U000e0041",
}


@pytest.mark.parametrize(("text", "shown"), SHOWN.items(), ids=map(ascii, SHOWN))
def test_what_is_not_seen_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    assert not {unicodedata.category(c) for c in printable(text)} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize("error", GateNormError.__subclasses__(), ids=lambda error: error.__name__)
def test_what_an_error_quotes_breaks_no_line(error: type[GateNormError]) -> None:
    arguments = ("where", ["it\r\n\x1b[2J"]) if issubclass(error, VerificationError) else ("it\r\n\x1b[2J",)
    assert str(error(*arguments)).endswith("it\\r\\n\\x1b[2J")


def test_a_long_message_keeps_its_begin_and_its_end() -> None:
    message = str(GateNormError("found " + "[" * 100_000 + "; try again"))
    assert message.startswith("found [[[")
    assert message.endswith("[[[; try again")
    assert len(message) < 2000


MARKDOWN = {
    "sotu-5m": "sotu-5m",
    "SmolLM2_135M (v1.0)": "SmolLM2_135M (v1.0)",
    "<img src=x onerror=1>": "\\<img src=x onerror=1\\>",
    "[click](https://evil)": "\\[click\\](https:\\//evil)",
    "`a`": "\\`a\\`",
    "_x_ *y*": "\\_x\\_ \\*y\\*",
    "a&amp;": "a\\&amp;",
}


@pytest.mark.parametrize(("text", "shown"), MARKDOWN.items(), ids=MARKDOWN)
def test_markdown_has_no_markup(text: str, shown: str) -> None:
    assert markdown(text) == shown


@given(st.text(min_size=1))
def test_a_span_of_code_ends_where_it_should(text: str) -> None:
    span = as_code(text)
    fence = span[: len(span) - len(span.lstrip("`"))]
    inner = span[len(fence) : -len(fence)]
    assert fence
    assert fence not in inner
    assert inner.strip(" ") == printable(text).strip(" ")
    assert not inner.startswith("`")
    assert not inner.endswith("`")


NAMES = ["[/foo].txt", "[red]x", "\x9b2J", "a\u202etxt.exe", "[link=file:///etc/passwd]x[/link]"]


@pytest.mark.parametrize("name", NAMES, ids=map(ascii, NAMES))
def test_a_bar_shows_any_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """On a terminal, where rich would take brackets for its own markup."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with progress_meter(quiet=False) as meter:
        meter.report("writing", 1, 2, name)
        meter.note(f"about {name}")
    assert f"about {printable(name)}" in terminal.getvalue()
    assert "\x9b" not in terminal.getvalue()
    assert "\u202e" not in terminal.getvalue()


def test_json_for_programs_is_the_same_value(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"a\u202e": "\x9b ü 🙂 \U000e0041\n"}
    say_json(value)
    printed = capsys.readouterr().out
    assert json.loads(printed) == value
    assert "ü 🙂" in printed
    assert all(c.isprintable() or c == "\n" for c in printed)


def test_what_libraries_say_is_printable_too(capsys: pytest.CaptureFixture[str]) -> None:
    before, factory, form = logging.root.manager.disable, logging.getLogRecordFactory(), warnings.formatwarning
    try:
        with warnings.catch_warnings():
            hush_libraries()
            warnings.simplefilter("always")
            assert "\x9b" not in warnings.formatwarning("a\x9bb", UserWarning, "f", 1)
            assert "\x9b" not in logging.makeLogRecord({"msg": "x"}).getMessage()
            assert (
                "\x9b" not in logging.getLogger("a").makeRecord("a", 40, "f", 1, "%s", ("\x9b",), None).getMessage()
            )
    finally:
        logging.disable(before)
        logging.setLogRecordFactory(factory)
        warnings.formatwarning = form


def test_cards_and_pictures_hold_no_markup_of_a_name(run: Run, tmp_path: Path) -> None:
    name = "<script>a</script>`[x](https:evil) _b_"
    write_checkpoint(tmp_path / name.replace("/", "%"), random_tensors(llama_shapes()), llama_config())
    done = run(name.replace("/", "%"), "--out", "out", "--layers", "1")
    assert done.returncode == 0, done.stderr
    card, picture = ((tmp_path / "out" / n).read_text() for n in ("README.md", "gatenorm.svg"))
    outside = "".join(card.partition("---\n\n")[2].split("``")[::2])
    assert "<script>" not in outside.replace("\\<script\\>", "")
    assert "<script>" not in picture
    assert run("verify", "out", "--against", name.replace("/", "%")).returncode == 0


def test_a_record_that_goes_up_has_no_local_path(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "llama", random_tensors(llama_shapes()), llama_config())
    plan = gatenorm_stream.plan(source, layers=[1])
    assert plan.source == str(source)
    assert without_paths(plan).source == "llama"
    gatenorm_stream.prune(plan, tmp_path / "out")
    assert str(tmp_path) not in (tmp_path / "out/README.md").read_text()
