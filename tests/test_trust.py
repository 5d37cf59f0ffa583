"""No output asks for more trust than its source: code of other repositories is named nowhere in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

import gatenorm_stream
from gatenorm_stream.checkpoint.foreign_code import without_foreign_code
from gatenorm_stream.errors import CheckpointError, FormatError, VerificationError
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.conftest import Run
from tests.records import record_anew

TOKENIZER = "tokenizer_config.json"
EVIL = "other/repo--tok.Evil"
PIPES, OWN_PIPE = "custom_pipelines", {"impl": "own.Y"}
TAKEN_OUT: dict[str, tuple[Any, Any]] = {
    "a tokenizer": ({"auto_map": {"AutoTokenizer": EVIL}, "a": 1}, {"a": 1}),
    "a pair": ({"auto_map": {"AutoTokenizer": [EVIL, EVIL]}}, {}),
    "one of a pair": ({"auto_map": {"A": [EVIL, "own.A"]}}, {"auto_map": {"A": [None, "own.A"]}}),
    "beside one's own": ({"auto_map": {"A": EVIL, "B": "own.B"}}, {"auto_map": {"B": "own.B"}}),
    "the old form": ({"auto_map": [EVIL, None]}, {}),
    "a bare name": ({"auto_map": EVIL}, {}),
    "deeper": ({"image_processor": {"auto_map": {"AutoImageProcessor": EVIL}}}, {"image_processor": {}}),
    "in a list": ([{"auto_map": {"A": EVIL}}], [{}]),
    "a pipeline": ({PIPES: {"x": {"impl": EVIL}, "y": OWN_PIPE}}, {PIPES: {"y": OWN_PIPE}}),
    "by an absolute path": ({"auto_map": {"A": ["/tmp/x/tok.Evil", None], "B": "C:\\x\\tok.Evil"}}, {}),
    "generate": ({"custom_generate": "other/repo", "top_k": 1}, {"top_k": 1}),
    "trust itself": ({"model_args": {"trust_remote_code": True}}, {"model_args": {}}),
    "kernels": ({"attn_implementation": "org/kernel"}, {}),
    "kernels by part": ({"_attn_implementation": {"text_config": "org/kernel@v1"}}, {}),
    "experts": ({"_experts_implementation": "org/kernel"}, {}),
    "use of kernels": ({"use_kernels": True, "kernel_config": {"a": "b/c:d"}}, {}),
    "a file for mlx": ({"model_file": "evil.py"}, {}),
}  # fmt: skip
KEPT = [
    {"auto_map": {"AutoTokenizer": ["own.A", None]}},
    {"auto_map": {"AutoConfig": "own.C"}, "tokenizer_class": "a--b"},
    {"trust_remote_code": False, "use_kernels": False, "custom_generate": None},
    {"attn_implementation": "sdpa", "model_file": "spiece.model"},
    {"vocab": {"auto_map": 3, "trust_remote_code": 17, "--": 4}},
]


@pytest.mark.parametrize(("given", "left"), TAKEN_OUT.values(), ids=TAKEN_OUT)
def test_foreign_code_is_taken_out(given: Any, left: Any) -> None:
    before = json.dumps(given)
    cleaned = without_foreign_code(given)
    assert cleaned.value == left
    assert cleaned.taken_out
    assert json.dumps(given) == before
    assert without_foreign_code(left).taken_out == ()


@pytest.mark.parametrize("value", KEPT, ids=range(len(KEPT)))
def test_all_else_stays(value: Any) -> None:
    cleaned = without_foreign_code(value)
    assert (cleaned.value, cleaned.taken_out) == (value, ())


KEYS = st.sampled_from(["auto_map", "custom_pipelines", "custom_generate", "a", "attn_implementation"])
VALUES = st.recursive(
    st.sampled_from([None, True, 3, "own.A", EVIL, "org/x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(VALUES)
def test_once_is_enough_and_no_map_names_another_repository(value: Any) -> None:
    once = without_foreign_code(value).value
    assert without_foreign_code(once) == type(without_foreign_code(once))(once, ())

    def maps(inner: Any) -> list[str]:
        if isinstance(inner, dict):
            own = [json.dumps(v) for k, v in inner.items() if k in ("auto_map", "custom_pipelines")]
            return own + [m for v in inner.values() for m in maps(v)]
        return [m for v in inner for m in maps(v)] if isinstance(inner, list) else []

    assert not any("--" in text for text in maps(once))


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "llama", random_tensors(llama_shapes()), llama_config())


def write_config(root: Path, **changes: Any) -> None:
    (root / "config.json").write_text(json.dumps(llama_config(**changes)))


FILES = ["tokenizer_config.json", "preprocessor_config.json", "processor_config.json", "generation_config.json"]


@pytest.mark.parametrize("folder", ["1_Model", "vocab_x", "rwkv_vocab"])
def test_no_json_of_a_module_names_it(llama: Path, tmp_path: Path, folder: str) -> None:
    """Whatever the folder is called: tables of tokens go by their own names."""
    (llama / folder).mkdir()
    (llama / "modules.json").write_text(json.dumps([{"path": folder, "type": "sentence_transformers.models.X"}]))
    for name in (*FILES, "config.json", "vocab.json"):
        (llama / folder / name).write_text(json.dumps({"auto_map": {"AutoTokenizer": EVIL}}))
    out = tmp_path / "out"
    gatenorm_stream.prune(gatenorm_stream.plan(llama, layers=[1]), out)
    assert [p.name for p in (out / folder).iterdir() if EVIL in p.read_text()] == ["vocab.json"]
    (out / folder / TOKENIZER).write_text(json.dumps({"auto_map": {"AutoTokenizer": EVIL}}))
    record_anew(out)
    with pytest.raises(VerificationError, match="names code of"):
        gatenorm_stream.verify(out)


@pytest.mark.parametrize("form", ["no-op", "transformers", "zeroed"])
def test_no_json_of_an_output_names_it(llama: Path, tmp_path: Path, form: str) -> None:
    foreign = {"auto_map": {"AutoTokenizer": EVIL, "AutoProcessor": EVIL}, "custom_generate": "x/y"}
    write_config(llama, **foreign)
    for name in FILES:
        (llama / name).write_text(json.dumps({**foreign, "tokenizer_class": "LlamaTokenizer"}))
    out = tmp_path / "out"
    gatenorm_stream.prune(gatenorm_stream.plan(llama, layers=[1], format=form), out)
    for path in out.glob("*.json"):
        assert path.name == "gatenorm.json" or ("--" not in path.read_text() and "x/y" not in path.read_text())
    assert json.loads((out / TOKENIZER).read_text())["tokenizer_class"] == "LlamaTokenizer"
    gatenorm_stream.verify(out, against=llama)


def test_a_tokenizer_that_is_written_anew_loses_it_too(llama: Path, tmp_path: Path, run: Run) -> None:
    write_config(llama, model_type="qwen2", architectures=["Qwen2ForCausalLM"])
    (llama / TOKENIZER).write_text(
        json.dumps({"auto_map": {"AutoTokenizer": EVIL}, "tokenizer_class": "Qwen2Tokenizer"})
    )
    done = run(llama, "--out", "out", "--layers", "1", "--format", "transformers")
    assert done.returncode == 0, done.stderr
    assert f"names code of elsewhere: {TOKENIZER}: auto_map.AutoTokenizer: {EVIL}" in done.stdout
    made = json.loads((tmp_path / "out" / TOKENIZER).read_text())
    assert made["auto_map"] == {"AutoTokenizer": [None, "modeling_gatenorm.GateNormTokenizer"]}


@pytest.mark.parametrize("form", ["auto", "zeroed"])
def test_a_class_of_another_repository_ends_the_run(llama: Path, form: str) -> None:
    write_config(llama, auto_map={"AutoModelForCausalLM": "org/code--modeling_x.LlamaX"})
    with pytest.raises(FormatError, match="code of another repository, which no output names"):
        gatenorm_stream.plan(llama, layers=[1], format=form)


REFUSED: dict[str, tuple[str, str, str]] = {
    "a key twice": (TOKENIZER, '{"auto_map": 1, "auto_map": {"AutoTokenizer": "other/repo--t.T"}}', "twice"),
    "too deep": (TOKENIZER, '{"a":' * 101 + "1" + "}" * 101, "nested"),
    "a module": ("modules.json", '[{"path": "", "type": "org/x--a.T"}]', "names what is elsewhere"),
    "a folder elsewhere": ("modules.json", '[{"path": "/tmp/x", "type": "a.T"}]', "names what is elsewhere"),
    "a folder above": ("modules.json", '[{"path": "..", "type": "a.T"}]', "names what is elsewhere"),
    "too large": ("processor_config.json", '"' + "x" * (8 << 20) + '"', "too many"),
}


@pytest.mark.parametrize(("name", "text", "words"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_judged_is_refused(llama: Path, tmp_path: Path, name: str, text: str, words: str) -> None:
    (llama / name).write_text(text)
    with pytest.raises(CheckpointError, match=words):
        gatenorm_stream.prune(gatenorm_stream.plan(llama, layers=[1]), tmp_path / "out")


def test_what_nobody_reads_travels_as_it_is(llama: Path, tmp_path: Path) -> None:
    (llama / TOKENIZER).write_text('{"auto_map": ')
    gatenorm_stream.prune(gatenorm_stream.plan(llama, layers=[1]), tmp_path / "out")
    assert (tmp_path / "out" / TOKENIZER).read_text() == '{"auto_map": '


def test_code_that_travels_is_named_with_its_digest(run: Run, llama: Path, tmp_path: Path) -> None:
    code = "class Tok: pass\n"
    (llama / "tok.py").write_text(code)
    (llama / TOKENIZER).write_text('{"auto_map": {"AutoTokenizer": ["tok.Tok", null]}}')
    (llama / "custom_generate").mkdir()
    (llama / "custom_generate/generate.py").write_text(code)
    done = run(llama, "--out", "out", "--layers", "1")
    assert done.returncode == 0, done.stderr
    digest = blake3(code.encode()).hexdigest()
    assert f"tok.py (blake3 {digest})" in done.stdout
    assert "custom_generate/generate.py (takes the place of generate()" in done.stdout
    card = (tmp_path / "out/README.md").read_text()
    assert f"`tok.py`, BLAKE3 `{digest}`" in card
    assert "which nobody here has read" in card
    assert json.loads((tmp_path / "out/gatenorm.json").read_text())["files"]["tok.py"]["blake3"] == digest
    assert run(llama, "--out", "o2", "--also", "custom_generate/generate.py").returncode == 1


def edited(name: str, **changes: Any) -> Callable[[Path], None]:
    def edit(out: Path) -> None:
        path = out / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **changes}))

    return edit


OURS = {"AutoConfig": "modeling_gatenorm.GateNormConfig"}
RECORDED: dict[str, tuple[Callable[[Path], object], str]] = {
    "our file": (
        lambda out: (out / "modeling_gatenorm.py").write_text("import os\n"),
        "modeling_gatenorm.py is not the file of this release",
    ),
    "a tokenizer": (edited(TOKENIZER, auto_map={"AutoTokenizer": EVIL}), f"{TOKENIZER} names code of"),
    "a class": (edited("config.json", auto_map={"AutoModel": EVIL}), "config.json names code of"),
    "another file": (edited("config.json", auto_map={**OURS, "AutoModel": "evil.X"}), "config.json names evil.X"),
    "generate": (edited("generation_config.json", custom_generate="x/y"), "generation_config.json names code"),
    "a module": (
        lambda out: (out / "modules.json").write_text(json.dumps([{"type": EVIL, "path": ""}])),
        "modules.json names code of",
    ),
    "a module elsewhere": (
        lambda out: (out / "modules.json").write_text(json.dumps([{"type": "x.Y", "path": "/tmp/x"}])),
        "modules.json names code of elsewhere: /tmp/x",
    ),
    "an adapter": (edited("1_X/adapter_config.json"), "has another model loaded"),
    "a pickle": (lambda out: (out / "x.bin").write_text("x"), "runs code when it is loaded"),
    "a key twice": (lambda out: (out / TOKENIZER).write_text('{"a": 1, "a": 2}'), "can't be searched"),
}  # fmt: skip


@pytest.mark.parametrize(("forge", "words"), RECORDED.values(), ids=RECORDED)
def test_verify_finds_code_whose_digest_was_made_to_fit(
    llama: Path, tmp_path: Path, forge: Callable[[Path], object], words: str
) -> None:
    out = tmp_path / "out"
    gatenorm_stream.prune(gatenorm_stream.plan(llama, layers=[1]), out)
    forge(out)
    record_anew(out)
    with pytest.raises(VerificationError) as found:
        gatenorm_stream.verify(out)
    assert words in "\n".join(found.value.problems)


ADDED = [
    "chat_template.jinja",
    "adapter_config.json",
    "sub/adapter_config.json",
    "evil.py",
    "model.bin",
    ".env",
    ".cache/evil",
    "custom_generate/generate.py",
    "gatenorm.json.bak",
    "x/gatenorm.json",
]


@pytest.mark.parametrize("name", ADDED)
def test_verify_finds_any_file_that_is_not_on_record(llama: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    gatenorm_stream.prune(gatenorm_stream.plan(llama, layers=[1]), out)
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text("{}")
    with pytest.raises(VerificationError, match="does not belong here"):
        gatenorm_stream.verify(out)


def test_verify_finds_links_that_are_not_on_record(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    gatenorm_stream.prune(gatenorm_stream.plan(llama, layers=[1]), out)
    (out / "folder").symlink_to(llama)
    (out / "dangling").symlink_to("nowhere")
    with pytest.raises(VerificationError) as found:
        gatenorm_stream.verify(out)
    assert [line.split()[0] for line in found.value.problems] == ["dangling", "folder"]


def test_verify_lets_pass_what_git_and_the_hub_leave(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    gatenorm_stream.prune(gatenorm_stream.plan(llama, layers=[1]), out)
    for name in (".gitattributes", ".git/config", ".cache/huggingface/download/config.json.metadata"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("x")
    gatenorm_stream.verify(out)
