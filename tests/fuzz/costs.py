"""Checkpoints whose headers claim what no file holds: what they would cost is known before anything is read."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gatenorm_stream.errors import GateNormError
from gatenorm_stream.families.open import open_model
from gatenorm_stream.planning.decide import Wanted, decide_by_scores
from gatenorm_stream.planning.lay_out import lay_out
from gatenorm_stream.report.model_card import model_card
from gatenorm_stream.report.summary import size_table
from gatenorm_stream.scoring.readings import Reading
from gatenorm_stream.scoring.scorable import check_scorable
from gatenorm_stream.scoring.score import scored
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.scoring.selection import Choice
from gatenorm_stream.sources.local import LocalSource
from tests.checkpoints import llama_config, shapes_of
from tests.fuzz.target import Target, number
from tests.fuzz.watch import Watch

READ = 1 << 20
HEADS = 256
"""Bytes of queries and keys, and heads, that are scored in earnest."""
READINGS: tuple[Reading, ...] = ("per-head", "joint", "stored")


class Costs:
    def __init__(self, folder: Path, watch: Watch) -> None:
        self.watch = watch
        self._source = folder / "costs"
        self._source.mkdir()
        (self._source / "tokenizer.json").write_text("{}")
        self._claim(llama_config(), "BF16")
        self._act("per-head")

    def targets(self) -> tuple[Target, ...]:
        return (Target("costs", 0.001, self.cost, number),)

    def cost(self, data: bytes) -> None:
        rng = random.Random(data)
        sizes = {
            "num_hidden_layers": rng.choice([1, 2, 4, 20, 60]),
            "num_attention_heads": rng.choice([1, 2, 8, 1024, 1 << 20, 1 << 40]),
            "num_key_value_heads": rng.choice([1, 2, 8, 1024, 1 << 20]),
            "head_dim": rng.choice([1, 8, 128, 1 << 16, 1 << 30]),
            "hidden_size": rng.choice([1, 32, 4096, 1 << 20, 1 << 40]),
            "intermediate_size": rng.choice([1, 1 << 20, 1 << 40]),
            "vocab_size": rng.choice([1, 1 << 20, 1 << 40]),
        }
        self._claim(llama_config(**sizes), rng.choice(["BF16", "F32", "F8_E4M3", "U8"]))
        self.watch.permit(self._source)
        reading = rng.choice(READINGS)
        self.watch.case(lambda: self._act(reading))

    def _act(self, reading: Reading) -> None:
        with open_model(LocalSource(self._source)) as model:
            with suppress(GateNormError):
                check_scorable(model, reading)
                heads = sum(attention.heads.queries for attention in model.attention)
                if sum(attention.bytes for attention in model.attention) < READ and heads < HEADS:
                    scored(model, reading, threads=1)
            found = tuple(LayerScore(attention.layer, 1.0, (1.0,)) for attention in model.attention)
            layers = tuple(score.layer for score in found)[1:2] or (0,)
            decision = decide_by_scores(model, found, Wanted(Choice(layers=layers)))
            layout = lay_out(decision.plan, model)
            assert size_table(model, decision.plan, layout)
            assert model_card(decision.plan, model, layout, decision.form)

    def _claim(self, config: Mapping[str, Any], dtype: str) -> None:
        width = {"BF16": 2, "F32": 4}.get(dtype, 1)
        entries, end = {}, 0
        for name, shape in shapes_of(config).items():
            start, end = end, end + width * math.prod(shape)
            entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
        header = json.dumps(entries).encode()
        (self._source / "config.json").write_text(json.dumps(config))
        with open(self._source / "model.safetensors", "wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.truncate(min(8 + len(header) + end, (1 << 62)))
