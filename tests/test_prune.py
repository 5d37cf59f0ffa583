"""Pruning through the installed command, checked with the safetensors package and plain file reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

import gatenorm_stream
from tests.checkpoints import (
    LAYERS,
    llama_config,
    llama_shapes,
    random_tensors,
    read_tensors,
    write_checkpoint,
)
from tests.conftest import Run

GONE = ("self_attn.", "input_layernorm.")


def files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def gone(name: str, layers: set[int]) -> bool:
    return any(name.startswith(tuple(f"model.layers.{n}.{part}" for part in GONE)) for n in layers)


def test_no_op_keeps_every_other_tensor_byte_for_byte(run: Run, llama: Path, tmp_path: Path) -> None:
    before = files(llama)
    done = run(llama, "--out", "out", "--layers", "1,3")
    assert done.returncode == 0, done.stderr
    source = read_tensors(llama)
    assert read_tensors(tmp_path / "out") == {n: t for n, t in source.items() if not gone(n, {1, 3})}
    assert files(llama) == before
    assert not (tmp_path / "out.partial").exists()


def test_zeroed_keeps_every_shape_and_zeroes_o(run: Run, llama: Path, tmp_path: Path) -> None:
    assert run(llama, "--out", "out", "--layers", "0,2", "--format", "zeroed").returncode == 0
    for name, (dtype, shape, data) in read_tensors(tmp_path / "out").items():
        zeroed = name in {f"model.layers.{n}.self_attn.o_proj.weight" for n in (0, 2)}
        source = read_tensors(llama)[name]
        assert (dtype, shape) == source[:2]
        assert data == (bytes(len(data)) if zeroed else source[2]), name
    assert json.loads((tmp_path / "out/config.json").read_text()) == llama_config()


def test_zeroed_zeroes_the_bias_of_o_too(run: Run, tmp_path: Path) -> None:
    config = llama_config(attention_bias=True)
    root = write_checkpoint(tmp_path / "m", random_tensors(llama_shapes(bias=True)), config)
    assert run(root, "--out", "out", "--layers", "2", "--format", "zeroed").returncode == 0
    out = read_tensors(tmp_path / "out")
    assert not any(out["model.layers.2.self_attn.o_proj.bias"][2])
    assert any(out["model.layers.2.self_attn.q_proj.bias"][2])


def test_the_index_is_true(run: Run, llama: Path, tmp_path: Path) -> None:
    assert run(llama, "--out", "out", "--drop", "2").returncode == 0
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    held: dict[str, str] = {}
    total = 0
    for path in sorted((tmp_path / "out").glob("*.safetensors")):
        with safe_open(path, framework="numpy") as shard:
            held |= dict.fromkeys(shard.keys(), path.name)
            assert shard.metadata() == {"format": "pt"}
    total = sum(len(data) for _, _, data in read_tensors(tmp_path / "out").values())
    assert index == {"metadata": {"total_size": total}, "weight_map": held}


def test_a_single_file_stays_single(run: Run, tmp_path: Path) -> None:
    root = write_checkpoint(tmp_path / "m", random_tensors(llama_shapes()), llama_config(), shards=1)
    assert run(root, "--out", "out").returncode == 0
    assert [p.name for p in (tmp_path / "out").glob("*safetensors*")] == ["model.safetensors"]


def test_an_emptied_shard_goes_and_the_rest_are_renumbered(run: Run, tmp_path: Path) -> None:
    tensors = random_tensors(llama_shapes())
    root = write_checkpoint(tmp_path / "m", tensors, llama_config(), shards=1)
    stored = read_tensors(root)
    (root / "model.safetensors").unlink()
    attention = [n for n in stored if gone(n, {2})]
    parts = [
        [n for n in stored if n not in attention][::2],
        attention,
        [n for n in stored if n not in attention][1::2],
    ]
    from tests.checkpoints import write_shard

    weight_map: dict[str, str] = {}
    for number, names in enumerate(parts, start=1):
        file = f"model-{number:05d}-of-00003.safetensors"
        write_shard(root / file, {n: stored[n] for n in names})
        weight_map |= dict.fromkeys(names, file)
    (root / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert run(root, "--out", "out", "--layers", "2").returncode == 0
    assert sorted(p.name for p in (tmp_path / "out").glob("*.safetensors")) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert read_tensors(tmp_path / "out") == {n: t for n, t in stored.items() if n not in attention}
    assert run("verify", "out", "--against", root).returncode == 0


def test_other_files_travel_and_foreign_weights_do_not(run: Run, llama: Path, tmp_path: Path) -> None:
    (llama / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\ntags: [tiny]\n---\nold text\n")
    (llama / "LICENSE").write_text("free")
    (llama / "chat_template.jinja").write_text("{{ messages }}")
    (llama / "chat_templates").mkdir()
    (llama / "chat_templates/tools.jinja").write_text("kept")
    (llama / "notes.txt").write_text("mine")
    (llama / "original").mkdir()
    for foreign in ("pytorch_model.bin", "model.gguf", "original/consolidated.pth", "adapter.safetensors"):
        (llama / foreign).write_bytes(b"weights")
    (llama / ".git").mkdir()
    (llama / ".git/config").write_text("hidden")
    (llama / "link.txt").symlink_to("/etc/hostname")
    done = run(llama, "--out", "out")
    assert done.returncode == 0
    told = " ".join(done.stdout.split())
    assert (
        "left out: adapter.safetensors, model.gguf, notes.txt, original/consolidated.pth (runs code when it is "
        "loaded), pytorch_model.bin (runs code when it is loaded), link.txt (a link to a file of another kind)"
    ) in told
    out, source = files(tmp_path / "out"), files(llama)
    carried = {"LICENSE", "chat_template.jinja", "chat_templates/tools.jinja", "tokenizer.json"}
    carried.add("generation_config.json")
    assert f"travels along: {', '.join(sorted(carried))}" in told
    records = {"README.md", "gatenorm.json", "gatenorm.svg"}
    written = {*records, "config.json", "modeling_gatenorm.py", "model.safetensors.index.json"}
    assert {n for n in out if not n.endswith(".safetensors")} == carried | written
    assert all(out[name] == source[name] for name in carried)
    card = ModelCard.load(tmp_path / "out/README.md")
    assert (card.data.license, card.data.language) == ("apache-2.0", "en")
    assert card.data.tags == ["tiny", "gate-norm", "pruned"]
    assert "old text" not in card.text


@pytest.mark.parametrize("front", ["---\n: [\n---\n", "---\n- a\n---\n", "no front matter", "\xff\xfe"])
def test_a_bad_source_card_is_no_obstacle(run: Run, llama: Path, front: str) -> None:
    (llama / "README.md").write_bytes(front.encode("latin-1"))
    done = run(llama, "--out", "out")
    assert done.returncode == 0, done.stderr


def test_the_config_says_what_each_engine_reads(run: Run, llama: Path, tmp_path: Path) -> None:
    assert run(llama, "--out", "out", "--layers", "1").returncode == 0
    config = json.loads((tmp_path / "out/config.json").read_text())
    kept = {"n_heads_in_group": 2, "no_op": False, "replace_with_linear": False}
    pruned = {"n_heads_in_group": None, "no_op": True, "replace_with_linear": False}
    ffn = {"ffn_mult": 6.0, "no_op": False, "replace_with_linear": False}
    assert config["block_configs"] == [{"attention": a, "ffn": ffn} for a in (kept, pruned, kept, kept)]
    assert config["gatenorm"] == {
        "model_type": "llama",
        "architecture": "LlamaForCausalLM",
        "pruned_layers": [1],
        "layers": "model.layers",
        "attention": "self_attn",
        "input_norm": "input_layernorm",
    }
    assert (config["model_type"], config["architectures"]) == ("nemotron-nas", ["DeciLMForCausalLM"])
    assert (config["rope_theta"], config["rope_scaling"]) == (10000.0, None)
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 10000.0}
    assert {k: config[k] for k in ("head_dim", "num_key_value_heads", "attention_bias", "mlp_bias")} == {
        "head_dim": 8,
        "num_key_value_heads": 2,
        "attention_bias": False,
        "mlp_bias": False,
    }


@given(
    hidden=st.sampled_from([64, 192, 576, 896, 1024, 2048, 3072, 4096, 5120, 8192, 16384]),
    multiple=st.integers(1, 256),
)
def test_engines_compute_the_intermediate_size_from_ffn_mult(hidden: int, multiple: int) -> None:
    from gatenorm_stream.formats.no_op import _ffn_mult

    factor = _ffn_mult(256 * multiple, hidden)
    assert isinstance(factor, float)
    computed = int(2 * factor * hidden / 3)
    assert -(-computed // 256) * 256 == 256 * multiple


def test_llama3_rope_in_both_spellings(run: Run, tmp_path: Path) -> None:
    scaling = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    old = llama_config(rope_theta=5e5, rope_scaling={**scaling, "type": "llama3"})
    new = llama_config(rope_theta=..., rope_parameters={**scaling, "rope_type": "llama3", "rope_theta": 5e5})
    written = []
    for name, config in (("old", old), ("new", new)):
        root = write_checkpoint(tmp_path / name, random_tensors(llama_shapes()), config)
        assert run(root, "--out", f"{name}-out").returncode == 0
        written.append(json.loads((tmp_path / f"{name}-out/config.json").read_text()))
    for config in written:
        assert config["rope_theta"] == 5e5
        assert config["rope_parameters"] == {**scaling, "rope_type": "llama3", "rope_theta": 5e5}
        assert config["rope_scaling"] == {**scaling, "type": "llama3", "rope_type": "default"}


def test_rotary_buffers_of_old_checkpoints_go(run: Run, tmp_path: Path) -> None:
    shapes = llama_shapes() | {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": (4,) for n in range(LAYERS)}
    root = write_checkpoint(tmp_path / "m", random_tensors(shapes), llama_config())
    assert run(root, "--out", "out", "--layers", "1").returncode == 0
    assert not any("inv_freq" in name for name in read_tensors(tmp_path / "out"))


def test_mistral(run: Run, tmp_path: Path) -> None:
    config = llama_config(model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=None)
    root = write_checkpoint(tmp_path / "m", random_tensors(llama_shapes()), config)
    done = run(root, "--out", "out")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert written["gatenorm"]["architecture"] == "MistralForCausalLM"
    assert written["sliding_window"] is None
    assert run("verify", "out", "--against", root).returncode == 0


def test_a_plan_repeats_itself(run: Run, llama: Path, tmp_path: Path) -> None:
    assert run(llama, "--out", "one", "--drop", "2", "--reading", "stored").returncode == 0
    assert run(llama, "--out", "two", "--plan", "one/gatenorm.json").returncode == 0
    assert files(tmp_path / "one") == files(tmp_path / "two")
    printed = run(llama, "--dry-run", "--json", "--drop", "2", "--reading", "stored")
    (tmp_path / "plan.json").write_text(printed.stdout)
    assert run(llama, "--out", "three", "--plan", "plan.json").returncode == 0
    assert files(tmp_path / "one") == files(tmp_path / "three")


def test_dry_run_writes_nothing(run: Run, llama: Path, tmp_path: Path) -> None:
    done = run(llama, "--dry-run", "--out", "out", "--drop", "1")
    assert done.returncode == 0
    assert "nothing was written" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["llama"]


def test_force_replaces_an_earlier_output_only(run: Run, llama: Path, tmp_path: Path) -> None:
    assert run(llama, "--out", "out", "--layers", "1").returncode == 0
    assert run(llama, "--out", "out", "--layers", "2").returncode == 1
    assert run(llama, "--out", "out", "--layers", "2", "--force").returncode == 0
    assert json.loads((tmp_path / "out/gatenorm.json").read_text())["dropped"] == [2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["llama", "out"]
    (tmp_path / "out/results.txt").write_text("mine")
    assert "out holds results.txt" in run(llama, "--out", "out", "--force").stderr
    assert (tmp_path / "out/results.txt").read_text() == "mine"
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/work.txt").write_text("mine")
    refused = run(llama, "--out", "precious", "--force")
    assert refused.returncode == 1
    assert "was not written by gatenorm-stream" in refused.stderr
    assert files(tmp_path / "precious") == {"work.txt": b"mine"}


def test_an_empty_directory_is_a_fine_target(run: Run, llama: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert run(llama, "--out", "out").returncode == 0
    assert run("verify", "out").returncode == 0


def test_a_hub_cache_snapshot_is_read_through_its_links(run: Run, llama: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub/models--org--name"
    snapshot = repository / "snapshots/0123abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for path in llama.iterdir():
        blob = repository / "blobs" / f"blob-of-{path.name}"
        blob.write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("../../blobs") / blob.name)
    assert run(snapshot, "--out", "out", "--layers", "1").returncode == 0
    assert run("verify", "out", "--against", llama).returncode == 0


@settings(max_examples=10)
@given(
    dropped=st.sets(st.integers(1, LAYERS - 1), min_size=1),
    seed=st.integers(0, 2**32),
    shards=st.integers(1, 4),
    form=st.sampled_from(["no-op", "transformers", "zeroed"]),
)
@pytest.mark.slow
def test_any_order_of_tensors_survives(dropped: set[int], seed: int, shards: int, form: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        tensors = random_tensors(llama_shapes(), seed)
        root = write_checkpoint(Path(folder) / "m", tensors, llama_config(), shards=shards, seed=seed)
        plan = gatenorm_stream.plan(root, layers=dropped, format=form)
        gatenorm_stream.prune(plan, Path(folder) / "out")
        verified = gatenorm_stream.verify(Path(folder) / "out", against=root)
        source, out = read_tensors(root), read_tensors(Path(folder) / "out")
        if form != "zeroed":
            assert out == {n: t for n, t in source.items() if not gone(n, dropped)}
        assert verified.tensors == len(out)


@pytest.mark.parametrize(
    "name",
    [
        "readme.md",
        "Config.json",
        "GateNorm.json",
        "TOKENIZER.json",
        "README.md/x",
        "new\nline",
        "a\\b",
        "a:b",
        "\x1b[2J",
        "config.json:Zone.Identifier",
        "LICENSE:Zone.Identifier",
        "tokenizer.json~",
        "tokenizer (1).json",
        "Thumbs.db",
        "desktop.ini",
        " ",
        "x" * 200,
    ],
)
def test_stray_names_stay_and_are_told(run: Run, llama: Path, tmp_path: Path, name: str) -> None:
    assert run(llama, "--out", "before", "--layers", "1").returncode == 0
    path = llama / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    done = run(llama, "--out", "out", "--layers", "1")
    assert done.returncode == 0, done.stderr
    assert all(line.isprintable() for line in done.stdout.splitlines())
    told = "".join(done.stdout.split()).partition("leftout:")[2]
    assert "".join((name if name.isprintable() else ascii(name)[1:-1]).split()) in told
    assert files(tmp_path / "out") == files(tmp_path / "before")
    assert run("verify", "out", "--against", llama).returncode == 0


def test_code_that_a_config_names_travels_as_text_and_is_named(run: Run, llama: Path, tmp_path: Path) -> None:
    evil = f"open({str(tmp_path / 'ran')!r}, 'w')"
    (llama / "tokenization_evil.py").write_text(f"from .numpy import x\n{evil}")
    (llama / "tokenizer_config.json").write_text(
        '{"auto_map": {"AutoTokenizer": ["tokenization_evil.Slow", null]}}'
    )
    for name in ("numpy.py", "sitecustomize.py", "unnamed.py"):
        (llama / name).write_text(evil)
    done = run(llama, "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "code of the source, copied as text and not run, but by trust_remote_code: numpy.py (" in done.stdout
    assert "left out: sitecustomize.py (runs by its name alone), unnamed.py" in done.stdout
    assert (tmp_path / "out" / "tokenization_evil.py").read_bytes() == (llama / "tokenization_evil.py").read_bytes()
    assert run("verify", "out", "--against", llama).returncode == 0
    assert not (tmp_path / "ran").exists()


def test_a_record_or_second_index_in_the_source_does_not_travel(run: Run, llama: Path, tmp_path: Path) -> None:
    (llama / "gatenorm.json").write_text("{}")
    (llama / "MODEL.safetensors.index.json").write_text("{}")
    done = run(llama, "--out", "out")
    assert done.returncode == 0
    assert "left out: MODEL.safetensors.index.json" in done.stdout
    assert json.loads((tmp_path / "out" / "gatenorm.json").read_text())["tool"] == "gatenorm-stream"
    assert run("verify", "out", "--against", llama).returncode == 0


@pytest.mark.parametrize(("layers", "cautioned"), [("1", False), ("1,3", True)])
def test_a_caution_where_more_than_a_quarter_goes(run: Run, llama: Path, layers: str, cautioned: bool) -> None:
    done = run(llama, "--out", "out", "--layers", layers)
    assert done.returncode == 0
    assert ("more than a quarter goes" in done.stdout + done.stderr) == cautioned
