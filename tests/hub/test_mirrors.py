"""Servers that limit requests, mirrors that are not quite the Hub, lists with odd names, and half a cache."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from email.utils import formatdate
from pathlib import Path
from threading import Event

import pytest

from gatenorm_stream.errors import HubError
from gatenorm_stream.names import is_safe
from gatenorm_stream.sources.hub.address import HubAddress, hub_address
from gatenorm_stream.sources.hub.quantisation import with_file
from gatenorm_stream.sources.hub.retry import LEAST_PROGRESS, LONGEST_TOLD, Patience, TransientError, wait_told
from tests.conftest import COMMAND
from tests.gguf_files import shapes, tensors, write_gguf
from tests.hub.hub_faults import Fault, at
from tests.hub.hub_repository import Repository
from tests.hub.hub_runs import FIXTURE, Run, contents, environment
from tests.hub.hub_server import Hub

pytestmark = pytest.mark.slow

TOLD = {
    "seconds": (429, {"retry-after": "7"}, 7),
    "of 503": (503, {"retry-after": " 7 "}, 7),
    "of 500": (500, {"retry-after": "7"}, 7),
    "a fraction": (429, {"retry-after": "1.5"}, 1.5),
    "none at all": (429, {"retry-after": "0"}, 0),
    "the Hub's": (429, {"ratelimit": '"api";r=0;t=40'}, 40),
    "several policies": (429, {"ratelimit": '"api";r=3;t=90, "pages";r=0;t=40'}, 40),
    "the longer of two": (429, {"ratelimit": '"api";r=0;t=90, "pages";r=0;t=40'}, 90),
    "without what is left": (429, {"ratelimit": '"api";t=40'}, 40),
    "the older draft": (429, {"ratelimit": "limit=100, remaining=0, reset=40"}, 40),
    "a header of its own": (429, {"ratelimit-reset": "40"}, 40),
    "an older name": (429, {"x-ratelimit-reset": "40"}, 40),
    "another": (503, {"x-rate-limit-reset": "40"}, 40),
    "with a unit": (429, {"x-ratelimit-reset-requests": "40s"}, 40),
    "Retry-After comes first": (429, {"retry-after": "2", "ratelimit": '"api";r=0;t=40'}, 2),
    "a policy with room": (503, {"ratelimit": '"api";r=499;t=280'}, None),
    "a limit that is not why": (500, {"ratelimit": '"api";r=0;t=280'}, None),
    "nothing": (429, {}, None),
    "no number": (429, {"retry-after": "soon", "ratelimit": "x"}, None),
    "a negative one": (429, {"retry-after": "-5"}, None),
    "not a number": (429, {"retry-after": "nan"}, None),
    "digits of no alphabet": (429, {"retry-after": "\u0667"}, None),
}


@pytest.mark.parametrize(("status", "headers", "seconds"), TOLD.values(), ids=TOLD.keys())
def test_how_long_a_server_asks_to_wait(status: int, headers: dict[str, str], seconds: float | None) -> None:
    assert wait_told(status, headers) == seconds


@pytest.mark.parametrize("away", [-100, 0, 30, 300])
def test_a_time_to_wait_until(away: int) -> None:
    """As a date, and as a Unix time; one that has passed asks for no wait."""
    now = time.time()
    for headers in (
        {"retry-after": formatdate(now + away, usegmt=True)},
        {"x-ratelimit-reset": str(int(now + away))},
    ):
        found = wait_told(429, headers)
        assert found is not None
        assert max(away, 0) - 3 <= found <= max(away, 0)


def test_patience_is_counted_in_seconds_where_a_wait_is_told() -> None:
    """And not longer than can be meant: the line says what was asked."""
    lines: list[str] = []
    patience = Patience("x", lines.append, Event())
    with pytest.raises(HubError, match=rf"asks to wait {LONGEST_TOLD + 1:.0f} s, .* resumes"):
        patience.failed(TransientError("the server answered 429", LONGEST_TOLD + 1))
    assert lines == []
    patience.progressed(LEAST_PROGRESS)
    for _ in range(5):
        patience.failed(TransientError("the server answered 503", 0))
    with pytest.raises(HubError, match="6 times in a row"):
        patience.failed(TransientError("the server answered 503", 0))
    assert all("trying again in 0.0 s" in line for line in lines)


WAITS = {
    "the API, by RateLimit": Fault("status", 429, lambda r: r.path.startswith("/api/models/"), times=None),
    "a file, by RateLimit-Reset": Fault("status", 429, at("hub", "config.json"), times=None),
    "the storage, by Retry-After": Fault("status", 503, at("storage"), times=None),
}
HEADERS = ((("RateLimit", '"api";r=0;t=2'),), (("RateLimit-Reset", "2"),), (("Retry-After", "2"),))


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "headers"), [*zip(WAITS.values(), HEADERS, strict=True)], ids=WAITS.keys())
def test_limits_are_waited_for(run: Run, hub: Hub, fault: Fault, headers: tuple[tuple[str, str], ...]) -> None:
    """Once; without the header it would have been tried again after half a second."""
    from dataclasses import replace

    hub.faults.add(replace(fault, headers=headers, times=1))
    begun = time.monotonic()
    done = run("score", "org/sotu", "--connections", "1")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun >= 2
    assert done.stderr.count("trying again in 2.") == 1
    assert "as it asks" in done.stderr


def md5(file) -> str:
    return hashlib.md5(file.path.read_bytes()).hexdigest()


MIRRORS = {
    "md5": {"etag": md5},
    "size and time": {"etag": lambda f: f"{f.size:x}-5f3a"},
    "sha1 of the content": {"etag": lambda f: hashlib.sha1(f.path.read_bytes()).hexdigest()},
    "sha256 of all": {"etag": lambda f: f.sha256},
    "empty": {"etag": lambda f: ""},
    "no sizes": {"sizes": False},
    "no sizes and md5": {"sizes": False, "etag": md5},
    "below a path": {"below": "/hf"},
    "below two": {"below": "/mirrors/hf"},
    "below a path, all of it": {"below": "/hf", "sizes": False, "etag": md5},
    "no redirects": {"resolve_cache": False},
    "no redirects, no sizes": {"resolve_cache": False, "sizes": False},
}


@pytest.mark.slow
@pytest.mark.parametrize("traits", MIRRORS.values(), ids=MIRRORS.keys())
def test_mirrors(run: Run, hub: Hub, tmp_path: Path, pruned_locally: dict[str, str], traits: dict) -> None:
    for name, value in traits.items():
        setattr(hub.routes, name, value)
    mirror = hub.endpoint + traits.get("below", "")
    done = run("org/sotu", "--out", "out", HF_ENDPOINT=mirror)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == pruned_locally
    verified = run("verify", "out", "--against", "org/sotu", HF_ENDPOINT=f"{mirror}/")
    assert verified.returncode == 0, verified.stderr


@pytest.mark.parametrize(("skip", "says"), [(2, "its ETag changed"), (0, "")])
def test_a_mirrors_etag_must_stay(run: Run, hub: Hub, tmp_path: Path, skip: int, says: str) -> None:
    hub.routes.etag, hub.routes.resolve_cache = md5, False
    hub.faults.add(Fault("etag", match=at("storage", "model-00001*"), skip=skip, times=None))
    done = run("org/sotu", "--out", "out", "--connections", "1")
    assert done.returncode == bool(says)
    assert says in done.stderr


def test_another_commit_is_no_mirror(run: Run, hub: Hub, tmp_path: Path) -> None:
    answer = hub.routes.answer
    hub.routes.answer = lambda *asked: answer(*asked).headed(X_Repo_Commit="f" * 40)  # type: ignore[method-assign]
    done = run("score", "org/sotu")
    assert done.returncode == 1
    assert "another commit's is there now" in done.stderr


ODD = (
    "./config.json",
    "config.json/",
    "a//b.json",
    "../x",
    "/etc/x",
    "sub/./x",
    "C:x",
    "config.json:Zone.Identifier",
    "a\\b",
    "new\nline",
    "",
    ".",
)


@pytest.mark.parametrize("name", ODD)
def test_names_that_are_not_normal_are_not_safe(name: str) -> None:
    assert not is_safe(name)


def test_odd_names_in_a_list_are_left_out(
    run: Run, hub: Hub, tmp_path: Path, pruned_locally: dict[str, str]
) -> None:
    hub.routes.more = ODD
    done = run("org/sotu", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == pruned_locally
    told = "".join(done.stdout.split())
    for name in ODD:
        assert "".join((name if name.isprintable() else ascii(name)[1:-1]).split()) in told
    assert run("verify", "out", "--against", FIXTURE).returncode == 0


def test_hidden_files_of_a_repository_stay(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.routes.more = (".gitattributes", ".env", "sub/.secret/x.json", "id_rsa", "training_args.bin")
    done = run("org/sotu", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert not {".gitattributes", ".env", "id_rsa"} & set(contents(tmp_path / "out"))
    assert "id_rsa (may hold a secret)" in " ".join(done.stdout.split())


TAGGED = ("m-Q4_K_M.gguf", "m-Q8_0.gguf", "m.f16.gguf", "UD/m-UD-Q4_K_XL.gguf", "mmproj-Q8_0.gguf", "config.json")
SPLIT = ("Q6_K/m-Q6_K-00001-of-00002.gguf", "Q6_K/m-Q6_K-00002-of-00002.gguf")
TAGS = {
    "org/m:Q4_K_M": ("m-Q4_K_M.gguf",),
    "org/m:q4_k_m": ("m-Q4_K_M.gguf",),
    "org/m@main:Q8_0": ("m-Q8_0.gguf",),
    "org/m:F16": ("m.f16.gguf",),
    "org/m:UD-Q4_K_XL": ("UD/m-UD-Q4_K_XL.gguf",),
    "org/m:Q4_K_XL": ("UD/m-UD-Q4_K_XL.gguf",),
    "org/m:Q6_K": SPLIT,
    "org/m:m-Q8_0": ("m-Q8_0.gguf",),
}
NO_TAGS = {
    "org/m:Q4_K": "has no GGUF file of Q4_K: Q6_K, UD-Q4_K_XL, Q4_K_M, Q8_0, f16",
    "org/m:Q2_K": "has no GGUF file of Q2_K",
    "org/m:BF16": "has no GGUF file of BF16",
    "org/m:mmproj": "has no GGUF file of mmproj",
    "org/m:latest": "has no GGUF file of latest",
    "org/m:m": "has several files of m; give one as org/m:FILE",
}


@pytest.mark.parametrize(("text", "files"), TAGS.items())
def test_a_quantisation_names_a_file(text: str, files: tuple[str, ...]) -> None:
    address = hub_address(text)
    assert address is not None
    found, gguf = with_file(address, [*TAGGED, *SPLIT])
    assert gguf == files
    assert found == HubAddress("org/m", address.revision, files[0])


@pytest.mark.parametrize(("text", "says"), NO_TAGS.items())
def test_a_quantisation_that_names_none_or_several(text: str, says: str) -> None:
    address = hub_address(text)
    assert address is not None
    with pytest.raises(HubError, match=says):
        with_file(address, [*TAGGED, *SPLIT])


@pytest.mark.slow
def test_a_quantisation_is_pruned_and_repeated(run: Run, hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "quantised"
    folder.mkdir()
    for kind in ("Q4_0", "Q8_0"):
        write_gguf(folder / f"m-{kind}.gguf", tensors(shapes(), kind))
    hub.repositories["org/m"] = Repository(folder)
    assert run("org/m:q8_0", "--out", "out.gguf", "--layers", "1").returncode == 0
    record = json.loads((tmp_path / "out.gatenorm.json").read_text())
    assert record["source"] == "org/m:m-Q8_0.gguf"
    assert run("verify", "out.gguf", "--against", "org/m:Q8_0").returncode == 0
    assert run("verify", "out.gguf", "--against", folder / "m-Q8_0.gguf").returncode == 0
    download = "from huggingface_hub import hf_hub_download as h; h('org/m', 'm-Q8_0.gguf')"
    python = str(Path(COMMAND).with_name("python"))
    subprocess.run([python, "-c", download], env=environment(hub, tmp_path), check=True, capture_output=True)
    done = run("score", "org/m:Q8_0", "--json", HF_HUB_OFFLINE="1")
    assert json.loads(done.stdout)["model"] == "org/m:m-Q8_0.gguf"
    assert "has no GGUF file of Q4_0: Q8_0" in run("score", "org/m:Q4_0", HF_HUB_OFFLINE="1").stderr


SENTENCES = [{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
CODE = {"auto_map": {"AutoProcessor": "processing_x.X"}}
HALVES = {
    "without tokenizer": (("tokenizer*",), 0, "caution: the source has no tokenizer"),
    "without tokenizer.json": (("tokenizer.json",), 0, "caution: the source has no tokenizer"),
    "without a shard": (("model-00002*",), 1, "model-00002-of-00003.safetensors is not there"),
    "without all shards": (("model-0*",), 1, "model-00001-of-00003.safetensors is not there"),
    "without the index": (("*.index.json",), 1, "restore the index"),
    "without its config": (("config.json",), 1, "HF_HUB_OFFLINE is set"),
    "without code": (("tokenization_x.py",), 0, "caution: the source has no processing_x.py"),
    "without modules": (("1_Pooling/*",), 0, "caution: the source has nothing in 1_Pooling"),
    "whole": ((), 0, ""),
}


@pytest.mark.parametrize(("without", "code", "says"), HALVES.values(), ids=HALVES.keys())
def test_half_a_cache_offline(run: Run, tmp_path: Path, without: tuple[str, ...], code: int, says: str) -> None:
    """Said before anything is written, and with what to do; a whole one needs no word."""
    snapshot = tmp_path / "hf-home/hub/models--org--half/snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text("a" * 40)
    for path in FIXTURE.iterdir():
        (snapshot / path.name).write_bytes(path.read_bytes())
    if "tokenization_x.py" in without:
        (snapshot / "other.py").write_text("")
        (snapshot / "preprocessor_config.json").write_text(json.dumps(CODE))
    if "1_Pooling/*" in without:
        (snapshot / "modules.json").write_text(json.dumps(SENTENCES))
    for pattern in without:
        for path in snapshot.glob(pattern):
            path.unlink()
    done = run("org/half", "--dry-run", HF_HUB_OFFLINE="1")
    assert done.returncode == code, done.stderr
    told = " ".join((done.stdout + done.stderr).split())
    assert says in told
    assert ("`hf download org/half`" in told) == (code == 0 and bool(says)) or code == 1
    if not says:
        assert "caution: the source" not in told
    assert not list(tmp_path.glob("*.partial"))
