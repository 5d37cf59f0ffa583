"""The command on a repository of the Hub: the same results as on a directory, few bytes, no silent garbage."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from gatenorm_stream.checkpoint.safetensors import open_checkpoint
from gatenorm_stream.errors import HubError
from gatenorm_stream.names import is_safe
from gatenorm_stream.scoring.readings import READINGS
from gatenorm_stream.sources.hub.address import HubAddress, hub_address
from gatenorm_stream.sources.local import LocalSource
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.conftest import COMMAND
from tests.hub.hub_faults import Fault, at
from tests.hub.hub_repository import Repository
from tests.hub.hub_runs import FIXTURE, Run, contents, environment
from tests.hub.hub_server import Hub

REQUEST = 4 << 20


def bytes_of_queries_and_keys(folder: Path, layers: tuple[int, ...] | None = None) -> int:
    parts = ("q_proj.weight", "k_proj.weight")
    with open_checkpoint(LocalSource(folder)) as checkpoint:
        tensors = [t for name, t in checkpoint.tensors.items() if name.endswith(parts)]
        return sum(len(t.range) for t in tensors if layers is None or int(t.name.split(".")[2]) in layers)


def header_bytes(folder: Path) -> int:
    headers = (8 + int.from_bytes(p.read_bytes()[:8], "little") for p in folder.glob("*.safetensors"))
    texts = (folder / name for name in ("config.json", "model.safetensors.index.json"))
    return sum(headers) + sum(p.stat().st_size for p in texts if p.exists())


ADDRESSES = {
    "org/name": HubAddress("org/name"),
    "org/name@v1.0": HubAddress("org/name", "v1.0"),
    "org/name@refs/pr/3": HubAddress("org/name", "refs/pr/3"),
    "hf://org/name": HubAddress("org/name"),
    "hf://org/name@abc": HubAddress("org/name", "abc"),
    "https://huggingface.co/org/name": HubAddress("org/name"),
    "https://huggingface.co/org/name/tree/dev": HubAddress("org/name", "dev"),
    "https://huggingface.co/org/name/blob/main/model.safetensors": HubAddress("org/name", "main"),
    "TinyLlama/TinyLlama-1.1B_x.y": HubAddress("TinyLlama/TinyLlama-1.1B_x.y"),
    "./org/name": None,
    "/org/name": None,
    "name": None,
    "org/name/more": None,
    "../name": None,
    "org/..": None,
}


@pytest.mark.parametrize(("text", "expected"), ADDRESSES.items())
def test_addresses(text: str, expected: HubAddress | None) -> None:
    assert hub_address(text) == expected


def test_an_existing_path_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org/name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub_address("org/name") is None


@pytest.mark.parametrize("text", ["https://huggingface.co/datasets/a/b", "https://example.com/a/b", "hf://a"])
def test_addresses_of_no_model(text: str) -> None:
    with pytest.raises(HubError, match="give org/name"):
        hub_address(text)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a\\\\x", "a\0b", "", "C:x"])
def test_names_that_could_leave_the_directory(name: str) -> None:
    assert not is_safe(name)
    assert is_safe("sub/model.safetensors")


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.slow
def test_scores_are_those_of_the_directory(run: Run, hub: Hub, reading: str) -> None:
    remote = json.loads(run("score", "org/sotu", "--json", "--reading", reading).stdout)
    local = json.loads(run("score", FIXTURE, "--json", "--reading", reading).stdout)
    assert (remote.pop("model"), remote.pop("revision")) == ("org/sotu", hub.repositories["org/sotu"].commit)
    assert (local.pop("model"), local.pop("revision")) == (str(FIXTURE), None)
    assert remote == local


@pytest.mark.parametrize(
    "shards", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(40, marks=pytest.mark.slow)]
)
def test_score_fetches_queries_keys_and_headers_only(run: Run, hub: Hub, tmp_path: Path, shards: int) -> None:
    """With them dealt out at random, between other tensors."""
    wider = {32: 512, 16: 256}
    shapes = {n: tuple(wider.get(d, d) for d in s) for n, s in llama_shapes(12).items()}
    config = llama_config(num_hidden_layers=12, hidden_size=512)
    tensors = random_tensors(shapes)
    folder = write_checkpoint(tmp_path / "m", tensors, config, shards=shards, seed=1, tokenizer=False)
    hub.repositories["org/m"] = Repository(folder)
    done = run("score", "org/m")
    assert done.returncode == 0, done.stderr
    needed = bytes_of_queries_and_keys(folder) + header_bytes(folder)
    fetched = sum(r.sent for r in hub.log if r.file)
    assert needed <= fetched <= 1.01 * needed


def test_prune_fetches_each_byte_once(run: Run, hub: Hub, tmp_path: Path, pruned_locally: dict[str, str]) -> None:
    done = run("org/sotu", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == pruned_locally
    record = json.loads((tmp_path / "out/gatenorm.json").read_text())
    assert (record["source"], record["revision"]) == ("org/sotu", hub.repositories["org/sotu"].commit)
    kept = sum(p.stat().st_size for p in (tmp_path / "out").glob("*.safetensors"))
    others = sum(r.sent for r in hub.log.select("hub") if r.file)
    needed = kept + bytes_of_queries_and_keys(FIXTURE, tuple(record["dropped"])) + header_bytes(FIXTURE) + others
    assert sum(r.sent for r in hub.log if r.file) <= 1.01 * needed
    assert run("verify", "out", "--against", "org/sotu").returncode == 0
    assert run("verify", "out", "--against", FIXTURE).returncode == 0
    assert sorted(p.name for p in tmp_path.iterdir() if "out" in p.name) == ["out"]


@pytest.mark.slow
def test_dry_run_and_saved_plan(run: Run, hub: Hub, tmp_path: Path, pruned_locally: dict[str, str]) -> None:
    planned = run("org/sotu", "--dry-run", "--json")
    (tmp_path / "plan.json").write_text(planned.stdout)
    assert not list(tmp_path.glob("*.partial"))
    assert run("org/sotu", "--out", "out", "--plan", "plan.json").returncode == 0
    assert contents(tmp_path / "out") == pruned_locally


@pytest.mark.slow
def test_xet_headers_do_not_matter(run: Run, tmp_path: Path, pruned_locally: dict[str, str]) -> None:
    assert run("org/xet", "--out", "out").returncode == 0
    assert contents(tmp_path / "out") == pruned_locally


def download(hub: Hub, tmp_path: Path, *patterns: str) -> None:
    """By the real client, into the cache."""
    code = "import sys, huggingface_hub as h; h.snapshot_download('org/sotu', allow_patterns=sys.argv[1:] or None)"
    python = str(Path(COMMAND).with_name("python"))
    subprocess.run([python, "-c", code, *patterns], env=environment(hub, tmp_path), check=True)


@pytest.mark.slow
def test_a_cached_snapshot_is_read_and_nothing_fetched(run: Run, hub: Hub, tmp_path: Path) -> None:
    download(hub, tmp_path)
    hub.log.clear()
    assert run("org/sotu", "--out", "out").returncode == 0
    assert not [r for r in hub.log if r.file]
    offline = run("org/sotu", "--out", "offline", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert contents(tmp_path / "offline") == contents(tmp_path / "out")
    record = json.loads((tmp_path / "offline/gatenorm.json").read_text())
    assert (record["source"], record["revision"]) == ("org/sotu", hub.repositories["org/sotu"].commit)


@pytest.mark.slow
def test_single_cached_files_are_used(run: Run, hub: Hub, tmp_path: Path, pruned_locally: dict[str, str]) -> None:
    download(hub, tmp_path, "model-00002*", "config.json")
    hub.log.clear()
    assert run("org/sotu", "--out", "out").returncode == 0
    assert not hub.log.select(file="model-00002*")
    assert not hub.log.select(file="config.json")
    assert contents(tmp_path / "out") == pruned_locally


def test_offline_without_a_cache(run: Run) -> None:
    done = run("score", "org/sotu", HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert "HF_HUB_OFFLINE is set" in done.stderr


@pytest.mark.parametrize("endpoint", ["127.0.0.1:8900", ""])
def test_an_endpoint_without_its_scheme(run: Run, endpoint: str) -> None:
    done = run("score", "org/sotu", HF_ENDPOINT=endpoint)
    assert done.returncode == 1
    assert done.stderr == f"error: HF_ENDPOINT is {endpoint!r}; begin it with https:// or http://\n"


@pytest.mark.slow
def test_an_unreachable_hub_falls_back_to_the_cache(run: Run, hub: Hub, tmp_path: Path) -> None:
    download(hub, tmp_path)
    done = run("score", "org/sotu", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert "using the snapshot in the Hub cache" in done.stderr


PASSING = {
    "429 with Retry-After": Fault("status", 429, at("storage"), retry_after=1),
    "500": Fault("status", 500, at("hub", "model*")),
    "502": Fault("status", 502, at("storage"), times=2),
    "503 of the API": Fault("status", 503, lambda r: r.path.startswith("/api/models/")),
    "504": Fault("status", 504, at("storage"), skip=3),
    "dropped connections": Fault("drop", match=at("storage"), skip=1, times=3),
    "truncated bodies": Fault("truncate", 5000, at("storage"), times=4),
    "a stalled socket": Fault("stall", match=at("storage"), skip=2),
    "an expired address": Fault("expired", match=at("storage"), skip=2, times=2),
    "less than was asked for": Fault("short", 100_000, at("storage"), times=5),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_what_passes_is_tried_again(
    run: Run, hub: Hub, tmp_path: Path, pruned_locally: dict[str, str], fault: Fault
) -> None:
    hub.faults.add(fault)
    done = run("org/sotu", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == pruned_locally
    assert any(r.fault for r in hub.log)
    if fault.kind != "short":
        assert "trying again in" in done.stderr


@pytest.mark.slow
def test_bytes_are_asked_for_as_they_are(
    run: Run, hub: Hub, tmp_path: Path, pruned_locally: dict[str, str]
) -> None:
    """So that a cache which compresses for whoever accepts it does not for us."""
    hub.faults.add(Fault("gzip", match=at("storage"), times=None))
    assert run("org/sotu", "--out", "out").returncode == 0
    assert [r.fault for r in hub.log.select("storage")] == ["gzip"] * len(hub.log.select("storage"))
    assert len(hub.log.select("storage")) > 5
    assert contents(tmp_path / "out") == pruned_locally


STAYING = {
    "ranges are ignored": (Fault("ignore-range", match=at("storage"), times=None), "ignores ranges"),
    "another range": (Fault("wrong-range", match=at("storage"), skip=3), "the server sent bytes"),
    "another ETag": (Fault("etag", match=at("storage"), skip=4), "ETag"),
    "too many bytes": (Fault("wrong-length", 7, at("storage"), skip=2), "Content-Length"),
    "compressed unasked": (Fault("gzip", 1, at("storage"), times=None), "ignores ranges"),
    "always 503": (Fault("status", 503, at("storage"), skip=5, times=None, retry_after=0), "6 times in a row"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "says"), STAYING.values(), ids=STAYING.keys())
def test_what_stays_is_an_error_and_never_garbage(
    run: Run, hub: Hub, tmp_path: Path, pruned_locally: dict[str, str], fault: Fault, says: str
) -> None:
    hub.faults.add(fault)
    done = run("org/sotu", "--out", "out")
    assert done.returncode == 1
    assert says in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
    hub.faults.clear()
    assert run("org/sotu", "--out", "out").returncode == 0
    assert contents(tmp_path / "out") == pruned_locally


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tensor", "says"),
    [("self_attn.q_proj", "it starts over"), ("mlp.up_proj", "it fetches that file again")],
    ids=["kept from scoring", "fetched once"],
)
def test_damage_of_a_whole_file_is_found_by_its_digest(
    run: Run, hub: Hub, tmp_path: Path, tensor: str, says: str
) -> None:
    """A shard in which nothing goes is taken whole, and the Hub vouches for its sha256; the next run asks anew."""
    tensors = random_tensors(llama_shapes())
    folder = write_checkpoint(tmp_path / "m", tensors, llama_config(), shards=40)
    hub.repositories["org/m"] = Repository(folder)
    assert run("org/m", "--out", "sound", "--layers", "1").returncode == 0
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    whole = index["weight_map"][f"model.layers.0.{tensor}.weight"]
    last = f"-{(folder / whole).stat().st_size - 1}"
    hub.faults.add(Fault("corrupt", match=lambda r: r.file == whole and str(r.range).endswith(last)))
    done = run("org/m", "--out", "out", "--layers", "1")
    assert done.returncode == 1
    assert f"{whole} came damaged: its sha256 is not the Hub's; run the same command again, {says}" in done.stderr
    assert not (tmp_path / "out").exists()
    assert run("org/m", "--out", "out", "--layers", "1").returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "sound")
    assert run("verify", "out", "--against", folder).returncode == 0


REFUSALS = {
    "gated, no token": ("org/gated", {}, "is gated: accept its licence at"),
    "private, no token": ("org/private", {}, "log in with `hf auth login` or set HF_TOKEN"),
    "gated, wrong account": ("org/gated", {"HF_TOKEN": "hf_stranger"}, "with the account of your token"),
    "private, wrong account": ("org/private", {"HF_TOKEN": "hf_stranger"}, "that your token may read it"),
    "a token that is none": ("org/private", {"HF_TOKEN": "hf_other"}, "does not accept your token"),
    "not there": ("org/nothing", {}, "check the spelling"),
    "wrong revision": ("org/sotu@v9", {}, "has no revision v9"),
    "only .bin": ("org/bins", {}, "only pytorch_model.bin; save the model as safetensors"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_refusals_are_one_line(run: Run, hub: Hub, tmp_path: Path, refusal: str) -> None:
    name, token, says = REFUSALS[refusal]
    for args in (("score", name), (name, "--out", "out")):
        done = run(*args, **token)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert says in done.stderr
    assert not hub.log.sent("storage")
    assert not list(tmp_path.glob("out*"))


def test_the_token_goes_to_the_hub_alone(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.faults.add(Fault("status", 503, at("storage")), Fault("redirect", match=at("hub", "model-00003*")))
    outputs = []
    for name in ("org/gated", "org/private"):
        out = name.replace("/", "-")
        done = run(name, "--out", out, HF_TOKEN="hf_secret")
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout + done.stderr)
        outputs += [p.read_bytes().decode("latin-1") for p in (tmp_path / out).rglob("*") if p.is_file()]
    failed = run("org/gated@nope", "--out", "x", HF_TOKEN="hf_secret")
    debugged = run("score", "org/gated@nope", "--debug", HF_TOKEN="hf_secret")
    outputs += [failed.stderr, debugged.stderr]
    assert not any("hf_secret" in text for text in outputs)
    assert any(r.authorization for r in hub.log.select("hub"))
    assert not any(r.authorization for r in hub.log if r.origin != "hub")


@pytest.mark.slow
def test_a_branch_that_moves_meanwhile(hub: Hub, tmp_path: Path, pruned_locally: dict[str, str]) -> None:
    other = write_checkpoint(tmp_path / "other", random_tensors(llama_shapes()), llama_config())
    repository = hub.repositories["org/sotu"]
    first = repository.commit
    repository.commits["f" * 40] = other
    hub.rate = 3e6
    process = subprocess.Popen(
        [COMMAND, "org/sotu", "--out", "out", "--quiet"], cwd=tmp_path, env=environment(hub, tmp_path)
    )
    while not hub.log.select("storage"):
        time.sleep(0.005)
    hub.move("org/sotu", "main", "f" * 40)
    hub.rate = None
    assert process.wait(30) == 0
    assert contents(tmp_path / "out") == pruned_locally
    assert json.loads((tmp_path / "out/gatenorm.json").read_text())["revision"] == first


@pytest.mark.slow
def test_50_kills_lose_no_more_than_what_was_under_way(
    hub: Hub, tmp_path: Path, pruned_locally: dict[str, str]
) -> None:
    """Runs are killed at random moments until 50 were; each that gets through is right, and makes room for more."""
    rng = random.Random(1)
    connections, in_sockets = 2, 3_000_000
    kills = finished = 0
    hub.rate = 20e6
    command = [COMMAND, "org/sotu", "--out", "out", "--quiet", "--connections", str(connections)]
    while kills < 50:
        before, moment = hub.log.sent("storage"), rng.uniform(0, 9e6)
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(hub, tmp_path))
        while hub.log.sent("storage") - before < moment and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        killed = process.wait() == -signal.SIGKILL
        kills += killed
        if (tmp_path / "out").exists():
            assert contents(tmp_path / "out") == pruned_locally
            shutil.rmtree(tmp_path / "out")
            shutil.rmtree(tmp_path / "out.partial", ignore_errors=True)
            finished += 1
        else:
            assert killed
    hub.rate = None
    subprocess.run(command, cwd=tmp_path, env=environment(hub, tmp_path), check=True)
    assert contents(tmp_path / "out") == pruned_locally
    assert finished
    whole = sum(p.stat().st_size for p in FIXTURE.glob("*.safetensors"))
    assert hub.log.sent("storage") <= (finished + 1) * whole + kills * (connections * REQUEST + in_sockets)


@pytest.mark.slow
def test_ctrl_c_is_prompt_and_says_how_to_go_on(hub: Hub, tmp_path: Path) -> None:
    hub.rate = 1e6
    process = subprocess.Popen(
        [COMMAND, "org/sotu", "--out", "out"],
        cwd=tmp_path,
        env=environment(hub, tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while hub.log.sent("storage") < 1_000_000:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, stderr = process.communicate(timeout=10)
    assert time.monotonic() - begun < 5
    assert process.returncode == 130
    assert "the same command resumes" in stderr


@pytest.mark.slow
def test_a_disk_that_is_full_while_q_and_k_come(hub: Hub, tmp_path: Path) -> None:
    """The file-size limit of a process stands for a full disk: the write fails in the same place."""
    script = "import resource, signal; from gatenorm_stream.cli.main import main\n"
    script += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    script += "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)); main()"
    python = str(Path(COMMAND).with_name("python"))
    done = subprocess.run(
        [python, "-c", script, "org/sotu", "--out", "out"],
        cwd=tmp_path,
        env=environment(hub, tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "run the same command again" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_mistyped_name(run: Run) -> None:
    for typed, meant in (("org/stou", "org/sotu"), ("orgg/sotu", "org/sotu")):
        done = run("score", typed)
        assert done.returncode == 1
        assert done.stderr.endswith(f"did you mean {meant}?\n")
    assert "did you mean" not in run("score", "org/another").stderr
    assert "org/private" not in run("score", "org/privat").stderr


def test_a_mistyped_path_that_looks_like_a_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "sotu").symlink_to(FIXTURE)
    done = run("score", "models/stou")
    assert "models/stou is not here, but models/sotu is; asking the Hub" in done.stderr
    assert done.stderr.endswith("did you mean the local models/sotu?\n")
