"""Index entries that are odd and do no harm, and files beside a model; --quiet says nothing of either."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import llama_config, llama_shapes, random_tensors, read_tensors, write_checkpoint
from tests.conftest import Run

INDEX = "model.safetensors.index.json"
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
NORM = "model.norm.weight"

Damage = Callable[[dict[str, Any]], Any]
TOLERATED: dict[str, tuple[Damage, str]] = {
    "a tied head listed": (lambda i: i["weight_map"].update({"lm_head.weight": ONE}), "lists lm_head.weight"),
    "a rotary buffer listed": (
        lambda i: i["weight_map"].update({"model.layers.0.self_attn.rotary_emb.inv_freq": ONE}),
        "lists model.layers.0.self_attn.rotary_emb.inv_freq",
    ),
    "positions listed": (lambda i: i["weight_map"].update({"model.position_ids": TWO}), "lists model.position_ids"),
    "a tensor forgotten": (lambda i: i["weight_map"].pop(NORM), f"forgets {NORM}"),
    "a query forgotten": (
        lambda i: i["weight_map"].pop("model.layers.2.self_attn.q_proj.weight"),
        "forgets model.layers.2.self_attn.q_proj.weight",
    ),
    "a tensor elsewhere": (
        lambda i: i["weight_map"].update({NORM: ONE if i["weight_map"][NORM] == TWO else TWO}),
        "puts into another shard model.norm.weight",
    ),
    "half of them forgotten": (
        lambda i: [i["weight_map"].pop(name) for name in list(i["weight_map"])[::2][1:]],
        "more, which a shard holds: taken",
    ),
    "no metadata": (lambda i: i.pop("metadata"), ""),
    "metadata is null": (lambda i: i.update(metadata=None), ""),
    "metadata is a text": (lambda i: i.update(metadata="x"), ""),
    "a wrong size": (lambda i: i["metadata"].update(total_size=-3), ""),
    "more keys": (lambda i: i.update(extra=[1, 2]), ""),
}


@pytest.mark.parametrize(("damage", "says"), TOLERATED.values(), ids=TOLERATED.keys())
def test_odd_index_entries(run: Run, tmp_path: Path, damage: Damage, says: str) -> None:
    """The shards are what counts; the output's own index is whole again."""
    config = llama_config(tie_word_embeddings=True)
    shapes = llama_shapes()
    shapes.pop("lm_head.weight")
    root = write_checkpoint(tmp_path / "m", random_tensors(shapes), config)
    before = read_tensors(root)
    index = json.loads((root / INDEX).read_text())
    damage(index)
    (root / INDEX).write_text(json.dumps(index))
    done = run(root, "--out", "out", "--layers", "1")
    assert done.returncode == 0, done.stderr
    assert says in " ".join(done.stdout.split())
    kept = {
        name: t for name, t in before.items() if ".1.self_attn." not in name and ".1.input_layernorm" not in name
    }
    assert read_tensors(tmp_path / "out") == kept
    assert json.loads((tmp_path / "out" / INDEX).read_text())["weight_map"].keys() == kept.keys()
    assert run("verify", "out", "--against", root).returncode == 0


DAMAGED: dict[str, Damage] = {
    "a weight that is nowhere": lambda i: i["weight_map"].update({"model.layers.9.mlp.up_proj.weight": ONE}),
    "a head that is not tied": lambda i: i["weight_map"].update({"model.lm_head.weight": ONE}),
    "a norm of another": lambda i: i["weight_map"].update({"model.norm2.weight": ONE}),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED.keys())
def test_what_is_missing_stays_an_error(run: Run, llama: Path, damage: Damage) -> None:
    index = json.loads((llama / INDEX).read_text())
    damage(index)
    (llama / INDEX).write_text(json.dumps(index))
    done = run("score", llama)
    assert done.returncode == 1
    assert "which does not hold it; the checkpoint is damaged" in done.stderr


def card(text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / "README.md").write_text(text)


REMARKS: dict[str, Callable[[Path], Any]] = {
    "a card without metadata": card("# A model\n"),
    "a card of broken YAML": card("---\n: [\n---\n"),
    "a card of a list": card("---\n- a\n---\n"),
    "a card with an odd result": card("---\nmodel-index: 3\nlicense: mit\n---\n"),
    "an empty card": card(""),
    "stray files": lambda folder: (folder / "config.json:Zone.Identifier").write_text("x"),
    "a link that is not followed": lambda folder: (folder / "link.json").symlink_to("/etc/hostname"),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "an index that forgets": lambda folder: (folder / INDEX).write_text(
        (folder / INDEX).read_text().replace(f'"{NORM}"', '"model.position_ids"')
    ),
    "code": lambda folder: (folder / "modeling_x.py").write_text("print('no')"),
}


@pytest.mark.parametrize("spoil", REMARKS.values(), ids=REMARKS.keys())
def test_quiet_is_quiet(run: Run, llama: Path, spoil: Callable[[Path], Any]) -> None:
    spoil(llama)
    done = run(llama, "--out", "out", "--layers", "1", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


SETTINGS = {
    "a switch that is gone": {"HF_HUB_ENABLE_HF_TRANSFER": "1"},
    "talkative": {"HF_HUB_VERBOSITY": "debug"},
    "informed": {"HF_HUB_VERBOSITY": "info", "TRANSFORMERS_VERBOSITY": "info"},
    "no home": {"HF_HOME": "/proc/nowhere"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_every_command_is_quiet(run: Run, llama: Path, settings: dict[str, str]) -> None:
    card("# A model\n")(llama)
    for words in ((llama, "--out", "out", "--layers", "1"), ("verify", "out", "--against", llama)):
        done = run(*words, "--quiet", **settings)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), words
