"""The streamed pass over a model on the Hub: the numbers of the directory, each matrix fetched once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoints import llama_config, random_tensors, shapes_of, write_checkpoint
from tests.hub.hub_repository import Repository
from tests.hub.hub_runs import environment
from tests.hub.hub_server import Hub

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys
import numpy as np
from gatenorm_stream.families.open import open_model
from gatenorm_stream.measuring.forward import run
from gatenorm_stream.measuring.variants import Variant
from gatenorm_stream.measuring.numpy_decoder import numpy_decoder
from gatenorm_stream.sources.open import open_source

choosing, judging = np.random.default_rng(0).integers(0, 40, (2, 12))
with open_model(open_source(sys.argv[1])) as model, numpy_decoder(model) as decoder:
    outcome = run(decoder, choosing, judging, [Variant((1, 3), compensated=True)])
print(json.dumps([outcome.losses.tolist(), outcome.variants[0].losses.tolist()]))
"""


def test_the_pass_is_that_of_the_directory(hub: Hub, tmp_path: Path) -> None:
    config = llama_config(hidden_size=256)
    tensors = random_tensors(shapes_of(config))
    folder = write_checkpoint(tmp_path / "m", tensors, config, dtype="F32", seed=1, tokenizer=False)
    hub.repositories["org/m"] = Repository(folder)

    def losses(model: object) -> list[list[float]]:
        words = [sys.executable, "-c", SCRIPT, str(model)]
        done = subprocess.run(words, env=environment(hub, tmp_path), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert losses("org/m") == losses(folder)
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert sum(request.sent for request in hub.log if request.file) <= 1.02 * weights
