"""Each known mistake: one line that says what, where and what to do; exit code 1; nothing written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint, write_shard
from tests.conftest import COMMAND, Run


def fails(run: Run, tmp_path: Path, *args: object, says: tuple[str, ...]) -> None:
    before = snapshot(tmp_path)
    done = run(*args)
    assert done.returncode == 1, (done.stdout, done.stderr)
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert "Traceback" not in done.stderr
    for part in says:
        assert part in lines[0]
    assert snapshot(tmp_path) == before


def snapshot(root: Path) -> dict[str, int]:
    return {str(p): p.lstat().st_size for p in root.rglob("*") if not p.is_dir()}


def edit_config(root: Path, **changes: Any) -> None:
    config = json.loads((root / "config.json").read_text())
    (root / "config.json").write_text(json.dumps({k: v for k, v in (config | changes).items() if v is not ...}))


def remove(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda root: edit_config(root, **changes)


def write(name: str, content: bytes | str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def only_bin(root: Path) -> None:
    no_weights(root)
    (root / "pytorch_model.bin").write_bytes(b"pickle")


def adapter(root: Path) -> None:
    (root / "config.json").rename(root / "adapter_config.json")


def no_weights(root: Path) -> None:
    for path in root.glob("*.safetensors*"):
        path.unlink()


def without(name: str) -> Callable[[Path], None]:
    """The checkpoint, in one file, without the tensor `name`."""

    def rewrite(root: Path) -> None:
        tensors = random_tensors(llama_shapes())
        del tensors[name]
        shutil.rmtree(root)
        write_checkpoint(root, tensors, llama_config(), shards=1)

    return rewrite


def packed(root: Path) -> None:
    tensors = random_tensors(llama_shapes())
    tensors = {n.replace("q_proj.weight", "q_proj.qweight"): t for n, t in tensors.items()}
    shutil.rmtree(root)
    write_checkpoint(root, tensors, llama_config(), shards=1)


def integers(root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()
    shapes = llama_shapes()
    stored = {n: ("U8", s, bytes(int.__mul__(*s) if len(s) > 1 else s[0])) for n, s in shapes.items()}
    write_shard(root / "model.safetensors", stored)
    (root / "config.json").write_text(json.dumps(llama_config()))


def cut(root: Path) -> None:
    shard = root / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])


def index(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def rewrite(root: Path) -> None:
        path = root / "model.safetensors.index.json"
        content = json.loads(path.read_text())
        change(content["weight_map"])
        path.write_text(json.dumps(content))

    return rewrite


K1 = "model.layers.1.self_attn.k_proj.weight"
SHARD_2 = "model-00002-of-00002.safetensors"

BAD_SOURCES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "no config": (remove("config.json"), ("has no config.json", "give the directory")),
    "config is not JSON": (write("config.json", "{"), ("config.json is not valid JSON", "restore")),
    "config is an array": (write("config.json", "[]"), ("not a JSON object",)),
    "only .bin": (only_bin, ("pytorch_model.bin", "save the model as safetensors")),
    "an adapter": (adapter, ("is an adapter, not a model", "merge_and_unload")),
    "no weights": (no_weights, ("has no weights", "model.safetensors")),
    "no index": (remove("model.safetensors.index.json"), ("model-0000", "restore the index")),
    "missing shard": (remove(SHARD_2), (SHARD_2, "not there", "download")),
    "truncated shard": (cut, (SHARD_2, "truncated", "download")),
    "unknown architecture": (
        config(model_type="bert"),
        ("model_type='bert'", "gatenorm-stream families", "CONTRIBUTING"),
    ),
    "no architecture": (config(model_type=...), ("model_type=None", "not known")),
    "quantised tensors": (packed, ("packed, quantised", "unquantised")),
    "integer weights": (integers, ("stored as U8", "unquantised")),
    "q missing": (without("model.layers.0.self_attn.q_proj.weight"), ("has no model.layers.0.self_attn.q_proj",)),
    "k missing": (without(K1), (f"has no {K1}", "incomplete")),
    "heads of the wrong size": (config(num_attention_heads=8), ("has shape", "config.json calls for")),
    "heads that do not divide": (config(num_attention_heads=3), ("not a multiple",)),
    "heads that are no number": (config(num_attention_heads="4"), ("num_attention_heads='4'", "positive integer")),
    "a thousand million heads": (config(num_attention_heads=10**9), ("more than any model has",)),
    "a million layers": (config(num_hidden_layers=1_000_000), ("num_hidden_layers=1000000", "only 39 tensors")),
    "index leads out": (index(lambda m: m.update({K1: "../x.safetensors"})), ("../x.safetensors", "plain")),
    "index names an absolute file": (index(lambda m: m.update({K1: "/x.safetensors"})), ("plain",)),
    "index names a number": (index(lambda m: m.update({K1: 3})), ("plain",)),
    "index invents a tensor": (index(lambda m: m.update({"ghost": SHARD_2})), ("ghost", "does not hold it")),
    "broken header": (write(SHARD_2, b"\x04\0\0\0\0\0\0\0{]{]"), (SHARD_2, "not valid JSON")),
    "not safetensors": (write(SHARD_2, b"GGUF" * 100), (SHARD_2, "not a safetensors file")),
}


@pytest.mark.parametrize(("damage", "says"), BAD_SOURCES.values(), ids=BAD_SOURCES.keys())
def test_bad_sources(
    run: Run, llama: Path, tmp_path: Path, damage: Callable[[Path], None], says: tuple[str, ...]
) -> None:
    damage(llama)
    fails(run, tmp_path, llama, "--out", "out", says=says)


def test_a_missing_source(run: Run, tmp_path: Path) -> None:
    fails(run, tmp_path, "nowhere", "--out", "out", says=("nowhere is not there", "directory"))


def test_a_file_as_source(run: Run, llama: Path, tmp_path: Path) -> None:
    fails(run, tmp_path, llama / "config.json", "--out", "out", says=("not a directory", "give"))


def test_a_pipe_as_shard_does_not_hang(run: Run, llama: Path, tmp_path: Path) -> None:
    (llama / SHARD_2).unlink()
    os.mkfifo(llama / SHARD_2)
    fails(run, tmp_path, llama, "--out", "out", says=(SHARD_2, "not a regular file"))


def test_a_link_out_of_the_source(run: Run, llama: Path, tmp_path: Path) -> None:
    (llama / SHARD_2).rename(tmp_path / "elsewhere")
    (llama / SHARD_2).symlink_to(tmp_path / "elsewhere")
    fails(run, tmp_path, llama, "--out", "out", says=("leads out of", "a file of another kind", "refused"))


def test_dropping_all_there_are(run: Run, llama: Path, tmp_path: Path) -> None:
    fails(
        run,
        tmp_path,
        llama,
        "--out",
        "out",
        "--drop",
        "4",
        says=("can't drop 4 attention sublayers of 4", "--drop 3"),
    )
    fails(run, tmp_path, llama, "--out", "out", "--layers", "0-3", says=("can't drop all 4",))


def test_out_exists(run: Run, llama: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/file").write_text("")
    fails(run, tmp_path, llama, "--out", "out", says=("out exists", "--force"))
    (tmp_path / "file").write_text("")
    fails(run, tmp_path, llama, "--out", "file", says=("not a directory",))


def test_out_inside_source_or_around_it(run: Run, llama: Path, tmp_path: Path) -> None:
    fails(run, tmp_path, llama, "--out", llama / "out", says=("inside the source", "outside"))
    fails(run, tmp_path, llama, "--out", llama, says=("inside the source",))
    fails(run, tmp_path, llama, "--out", tmp_path, "--force", says=("contains the source",))
    (tmp_path / "link").symlink_to(llama)
    fails(run, tmp_path, llama, "--out", "link/out", says=("inside the source",))


def test_out_inside_another_output(run: Run, llama: Path, tmp_path: Path) -> None:
    assert run(llama, "--out", "first").returncode == 0
    fails(run, tmp_path, llama, "--out", "first/second", says=("inside", "an output", "outside"))
    assert run("verify", "first").returncode == 0


def test_disk_too_small(run: Run, llama: Path, tmp_path: Path) -> None:
    """A sparse shard that claims, truthfully, more than any disk here holds."""
    size = 8 << 40
    header = json.dumps({"padding": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with (llama / "model-00003-of-00003.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    index(lambda m: m.update({"padding": "model-00003-of-00003.safetensors"}))(llama)
    fails(run, tmp_path, llama, "--out", "out", says=("GB free, the output needs 879", "free some space"))


@pytest.mark.slow
def test_read_only_target(llama: Path, tmp_path: Path) -> None:
    """A directory without write permission; for root, which that does not stop, a read-only mount."""
    target = tmp_path / "target"
    target.mkdir()
    command = [COMMAND, str(llama), "--out", str(target / "out")]
    if os.geteuid() == 0:
        mount = f'mount -t tmpfs -o ro none {target} && exec "$@"'
        command = ["unshare", "-m", "sh", "-c", mount, "sh", *command]
    else:
        target.chmod(0o555)
    done = subprocess.run(command, capture_output=True, text=True)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("root without the right to mount")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "is not writable; choose another place" in done.stderr
    assert list(target.iterdir()) == []


BAD_PLANS: dict[str, tuple[dict[str, Any] | str | bytes, str]] = {
    "not there": ("", "can't be read"),
    "not JSON": ("{", "not valid JSON"),
    "not UTF-8": (b"\xff\xfe", "not valid JSON"),
    "not an object": ("[]", "is not a plan"),
    "another schema": ({"schema": 99}, "schema must be 1"),
    "dropped out of range": ({"dropped": [9]}, "dropped must be"),
    "dropped twice": ({"dropped": [1, 1]}, "dropped must be"),
    "dropped all": ({"dropped": [0, 1, 2, 3]}, "dropped must be"),
    "dropped none": ({"dropped": []}, "dropped must be"),
    "unknown format": ({"format": "gguf"}, "format must be one of"),
    "unknown reading": ({"reading": "mine"}, "reading must be one of per-head, joint, stored, not 'mine'"),
    "a reading that is gone": (
        {"reading": "value-output-product"},
        "'value-output-product'; score the model anew",
    ),
    "unknown engine": ({"engines": ["ollama"]}, "engines must be"),
    "scores of text": ({"layers": [{"layer": 0, "score": "1", "heads": []}]}, "layers must be"),
    "a score beyond all floats": (
        {"layers": [{"layer": 0, "score": 10**400, "heads": []}]},
        "integer in it has 401 digits",
    ),
    "infinite score": ({"layers": [{"layer": 0, "score": float("inf"), "heads": []}]}, "layers must be"),
    "fewer layers": (
        {"layers": [{"layer": n, "score": 1.0, "heads": []} for n in range(2)], "dropped": [1]},
        "a llama of 2 attention layers",
    ),
    "another family": ({"family": "mistral"}, "made for a mistral"),
    "layer 0 in no-op": ({"dropped": [0]}, "layer 0 stands in the way"),
}


@pytest.mark.parametrize(("change", "says"), BAD_PLANS.values(), ids=BAD_PLANS.keys())
def test_bad_plans(run: Run, llama: Path, tmp_path: Path, change: dict[str, Any] | str | bytes, says: str) -> None:
    plan = json.loads(run(llama, "--dry-run", "--json").stdout)
    path = tmp_path / "plan.json"
    if isinstance(change, dict):
        path.write_text(json.dumps(plan | change))
    elif change:
        path.write_bytes(change if isinstance(change, bytes) else change.encode())
    fails(run, tmp_path, llama, "--out", "out", "--plan", path, says=(says,))


FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "activation": ({"hidden_act": "gelu"}, "hidden_act=gelu"),
    "rope": ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_type=yarn"),
    "intermediate size": ({"intermediate_size": 384}, "intermediate_size=384"),
    "head_dim": ({"hidden_size": 64}, "head_dim"),
    "partial rotary": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    "sliding window": ({"model_type": "mistral", "sliding_window": 64}, "sliding_window=64"),
    "sliding window by default": (
        {"model_type": "mistral", "max_position_embeddings": 8192},
        "sliding_window=4096",
    ),
}


@pytest.mark.parametrize(("changes", "says"), FIELDS.values(), ids=FIELDS.keys())
def test_what_no_op_cannot_express_is_named_and_auto_falls_back(
    run: Run, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    shapes = llama_shapes()
    if "hidden_size" in changes:
        shapes = {
            n: tuple(64 if d == 32 and i == len(s) - 1 else d for i, d in enumerate(s)) for n, s in shapes.items()
        }
        changes = changes | {"head_dim": 8}
    root = write_checkpoint(tmp_path / "m", random_tensors(shapes), llama_config(**changes))
    fails(run, tmp_path, root, "--out", "out", "--format", "no-op", says=("no-op can't express", says, "zeroed"))
    auto = run(root, "--out", "out")
    assert auto.returncode == 0, auto.stderr
    assert f"no-op passed over: {says}" in auto.stdout
    assert json.loads((tmp_path / "out/gatenorm.json").read_text())["format"] == "transformers"


def test_layer_0_needs_engines_that_can(run: Run, llama: Path, tmp_path: Path) -> None:
    args = (llama, "--out", "out", "--layers", "0", "--format", "no-op")
    fails(run, tmp_path, *args, says=("layer 0", "llama.cpp, vllm", "--engine mlx-lm", "--format transformers"))
    fails(run, tmp_path, *args, "--engine", "vllm", says=("layer 0", "vllm"))
    assert run(*args, "--engine", "mlx-lm", "--engine", "transformers").returncode == 0


@pytest.mark.slow
def test_vllm_serves_some_families_in_the_format_transformers(run: Run, tmp_path: Path) -> None:
    tensors, options = random_tensors(llama_shapes()), ("--format", "transformers", "--engine", "vllm")
    for name, family in (("Qwen3ForCausalLM", "qwen3"), ("MinistralForCausalLM", "ministral")):
        config = llama_config(architectures=[name], model_type=family)
        write_checkpoint(tmp_path / family, tensors, config)
    served = run("qwen3", "--out", "out", *options)
    assert served.returncode == 0, served.stderr
    assert "format transformers: runs in transformers, vllm" in served.stdout
    says = ("architecture MinistralForCausalLM stands in the way in vllm", "use --format zeroed")
    fails(run, tmp_path, "ministral", "--out", "no", *options, says=says)


@pytest.mark.parametrize(
    "tokenizer",
    [None, "{", "[]", '{"model": {"type": "BPE"}}', '{"model": {"type": "Unigram"}}', '{"model": 3, "decoder": 3}'],
)
def test_the_converters_tokenizer_limit(run: Run, llama: Path, tmp_path: Path, tokenizer: str | None) -> None:
    if tokenizer is None:
        (llama / "tokenizer.json").unlink()
    else:
        (llama / "tokenizer.json").write_text(tokenizer)
    fails(
        run, tmp_path, llama, "--out", "out", "--format", "no-op", "--engine", "llama.cpp", says=("tokenizer.json",)
    )
    done = run(llama, "--out", "out")
    assert done.returncode == 0
    assert "not in llama.cpp: tokenizer.json" in done.stdout


@pytest.mark.parametrize(
    "args",
    [
        ("model", "--push-to", "org/name"),
        ("model", "--out", "x", "--drop", "1", "--share", "0.5"),
        ("model", "--out", "x", "--layers", "1-"),
        ("model", "--out", "x", "--layers", "5-3"),
        ("model", "--out", "x", "--format", "gguf"),
        ("model", "--out", "x", "--engine", "ollama"),
        ("model", "--out", "x", "--threads", "0"),
        ("score",),
        ("score", "a", "b"),
        ("verify",),
    ],
)
def test_usage_errors_exit_with_2(run: Run, args: tuple[str, ...]) -> None:
    done = run(*args)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
