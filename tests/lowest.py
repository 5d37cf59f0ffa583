"""Prints the lower bounds of pyproject.toml, those for pictures too, as constraints for `nox -s lowest`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
for requirement in [*project["dependencies"], *project["optional-dependencies"]["plot"]]:
    print(re.sub(r">=([^,]+).*", r"==\1", requirement))
