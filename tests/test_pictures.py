"""Pictures of scores: the files that the command writes, and that nothing in them lies outside or on top."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from gatenorm_stream.report.picture import HEAT_STEPS, Label, score_picture
from gatenorm_stream.report.svg import html, svg
from gatenorm_stream.report.theme import DARK, LIGHT, PAPER, heat_colours
from gatenorm_stream.scoring.scores import LayerScore
from tests.conftest import FIXTURE, Run

LAYERS, HEADS = 12, 6
SVG = "{http://www.w3.org/2000/svg}"


def made_up(layers: int, heads: int) -> tuple[LayerScore, ...]:
    norms = [[1 + (7 * n + 3 * h) % 11 for h in range(heads)] for n in range(layers)]
    return tuple(LayerScore(n, math.hypot(*row) if row else 5.0 + n, tuple(row)) for n, row in enumerate(norms))


def drawn(root: ET.Element, name: str) -> int:
    """How many boxes have this class: each begins with M."""
    return sum(path.get("d", "").count("M") for path in root.iter(f"{SVG}path") if path.get("class") == name)


def test_svg_has_a_bar_a_layer_and_a_cell_a_head(run: Run, tmp_path: Path) -> None:
    done = run("score", FIXTURE, "--drop", "3", "--plot", "out.svg")
    assert done.stdout.endswith("\nwrote out.svg\n")
    root = ET.parse(tmp_path / "out.svg").getroot()
    assert (drawn(root, "stays"), drawn(root, "hollow")) == (LAYERS - 3, 3)
    legend = HEAT_STEPS
    assert sum(drawn(root, f"h{n}") for n in range(HEAT_STEPS)) == LAYERS * HEADS + legend
    assert "9–11" not in svg_text(root)
    assert "8–10" in svg_text(root)


def svg_text(root: ET.Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{SVG}text")]


def test_html_is_one_file_with_a_title_for_each_bar_and_cell(run: Run, tmp_path: Path) -> None:
    run("score", FIXTURE, "--quiet", "--plot", "out.html")
    text = (tmp_path / "out.html").read_text("utf-8")
    assert not re.findall(r"(?:src|href|url|@import)\b", text)
    titles = re.findall(r"<title>(layer .*?)</title>", text)
    assert len(titles) == LAYERS + LAYERS * HEADS
    assert "layer 9: 10.489, rank 1, goes" in titles
    assert "layer 0, head 3: 13.41" in titles
    assert "prefers-color-scheme: dark" in text


@pytest.mark.slow
def test_png_has_both_colours(run: Run, tmp_path: Path) -> None:
    assert run("score", FIXTURE, "--json", "--plot", "out.png").returncode == 0
    picture = score_picture("x", "per-head", made_up(LAYERS, HEADS), (9, 10))
    pixels = imread(tmp_path / "out.png")
    assert pixels.shape[:2] == (2 * picture.height, 2 * picture.width)
    for ink in ("stays", "goes", PAPER):
        wanted = [int(LIGHT[ink][n : n + 2], 16) / 255 for n in (1, 3, 5)]
        assert (abs(pixels[:, :, :3] - wanted).max(axis=2) < 0.02).sum() > 200, ink


@pytest.mark.slow
def test_png_without_matplotlib_says_what_to_install(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['matplotlib'] = None\n")
    done = run("score", FIXTURE, "--plot", "out.png", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "[plot]" in done.stderr
    assert run("score", FIXTURE, "--plot", "out.svg", PYTHONPATH=str(tmp_path)).returncode == 0


@pytest.mark.parametrize(("name", "says"), [("out.pdf", "end its name in"), ("none/out.svg", "does not exist")])
def test_a_place_that_can_not_be_drawn_to(run: Run, name: str, says: str) -> None:
    done = run("score", FIXTURE, "--plot", name)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr


@given(st.integers(1, 126), st.sampled_from([0, 1, 2, 8, 64, 128]), st.data())
@pytest.mark.slow
def test_nothing_is_outside_nor_do_labels_overlap(layers: int, heads: int, data: st.DataObject) -> None:
    dropped = tuple(sorted(data.draw(st.sets(st.integers(0, layers - 1)))))
    picture = score_picture("org/" + "name" * 30, "per-head", made_up(layers, heads), dropped)
    for box in picture.boxes:
        assert 0 <= box.x <= box.x + box.width <= picture.width
        assert 0 <= box.y <= box.y + box.height <= picture.height
    places = [around(label) for label in picture.labels]
    for n, (left, top, right, bottom) in enumerate(places):
        assert left >= 0
        assert right <= picture.width, picture.labels[n]
        assert bottom <= picture.height
        for m, (left2, top2, right2, bottom2) in enumerate(places[:n]):
            apart = right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top
            assert apart, (picture.labels[n], picture.labels[m])


def around(label: Label) -> tuple[float, float, float, float]:
    """About what a label covers."""
    width, height = 0.6 * label.size * len(label.text), 0.8 * label.size
    left = label.x - {"start": 0.0, "middle": 0.5, "end": 1.0}[label.anchor] * width
    return left, label.y - height, left + width, label.y


def test_names_are_text(run: Run) -> None:
    picture = score_picture('<b>&"\x07', "joint", made_up(3, 0), (1,))
    assert ET.fromstring(svg(picture)) is not None
    assert "<b>" not in html(picture)


def luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_heat_scale_gets_lighter_at_every_step() -> None:
    steps = [luminance(c) for c in heat_colours(HEAT_STEPS)]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast_with_the_paper(theme: dict[str, str]) -> None:
    """4.5 : 1 for text and 3 : 1 for shapes, as WCAG 2 asks."""
    for ink, least in {"text": 7.0, "muted": 4.5, "goes": 4.5, "stays": 3.0}.items():
        bright, dim = sorted((luminance(theme[ink]), luminance(theme[PAPER])), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= least, ink
