"""The one list: what travels into an output, what stays, and what never travels whoever asks for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gatenorm_stream
from gatenorm_stream.checkpoint.safetensors import open_checkpoint
from gatenorm_stream.errors import CheckpointError, PlanError
from gatenorm_stream.names import looks_secret
from gatenorm_stream.planning.needs import read_needs
from gatenorm_stream.planning.travelling import Needs, missing, needed, never, travelling
from gatenorm_stream.sources.local import LocalSource
from tests.checkpoints import llama_config, write_shard
from tests.conftest import Run
from tests.gguf_files import shapes, tensors, write_gguf


def words(text: str) -> list[str]:
    return text.split()


TRAVEL = words("""
tokenizer.json tokenizer_config.json tokenizer.model tokenizer.model.v3 tokenizer.model.v7m1 tekken.json
special_tokens_map.json added_tokens.json vocab.json vocab.txt vocab.bpe merges.txt bpe.codes qwen.tiktoken
tiktoken.model spiece.model sentencepiece.bpe.model source.spm target.spm spm.model ice_text.model
rwkv_vocab_v20230424.txt
generation_config.json chat_template.jinja chat_template.json tool_chat_template.jinja
additional_chat_templates/rag.jinja chat_templates/tools.jinja preprocessor_config.json processor_config.json
image_processor_config.json video_preprocessor_config.json feature_extractor_config.json quantize_config.json
quant_config.json hf_quant_config.json modules.json config_sentence_transformers.json sentence_bert_config.json
LICENSE LICENSE.txt LICENCE.md license COPYING NOTICE NOTICE.txt Notice.md USE_POLICY.md LLAMA-LICENSE.txt
Apache-2.0-LICENSE.txt THIRD_PARTY_NOTICES LICENSES/MIT.txt LICENSES/LICENSE-2.0 TERMS_OF_USE.md CITATION.cff
""")
STAY = words("""
notes.txt train.jsonl model.gguf model.onnx onnx/model.onnx flax_model.msgpack tf_model.h5 rust_model.ot
adapter_model.safetensors consolidated.safetensors original/params.json params.json figure.png README_zh.md
configuration_other.py all_results.json eval.json optimizer.safetensors sub/tokenizer.json sub/LICENSE-not
TOKENIZER.json Tokenizer_Config.json tokenizer.json.bak tokenizer.json~ vocab.json.orig generation_config.yaml
openvino/openvino_model.xml coreml/model.mlmodel LICENSE.exe2 unlicensed.txt mergekit_config.yml recipe.yaml
""")
NEVER = words("""
.env .git/config .git/hooks/post-checkout .huggingface/token .gitattributes sub/.hidden/x .netrc prod.env env
id_rsa id_rsa.pub id_ed25519 server.pem tls.key cert.p12 store.jks keys.kdbx private_key.txt api_key api-key.json
openai_api_key.txt credentials credentials.json aws_credentials.csv client_secret.json secrets.yaml hf_token
hf_token.txt token token.txt token.json access_token.json github_token passwords.txt _netrc service_account.json
service-account-prod.json kubeconfig htpasswd tokenizer.key LICENSE.key pytorch_model.bin optimizer.pt
rng_state_0.pth model.ckpt data.pkl vectorizer.joblib tokenizer.pickle embeddings.npy libcuda.so libx.so.1 op.dll
lib.dylib x.pyd wheel.whl a.pyc evil.pth setup.py conftest.py sitecustomize.py install.sh run.bat
events.out.tfevents.1.host train.log trainer_state.json training_args.bin training_args.json nohup.out
runs/Nov1/x.json wandb/run.json logs/a.txt __pycache__/m.py hooks/pre-commit slurm-123.out
adapter_config.json 1_X/adapter_config.json
""")
TWINS = {
    "ours": ("Readme.md", "readme.MD"),
    "written": ("Config.json",),
    "licences": ("LICENSE", "license"),
    "unicode": ("NOTICE-e\u0301.txt", "NOTICE-\u00e9.txt"),
    "unicode and case": ("NOTICE-E\u0301.txt", "notice-\u00e9.txt"),
}


@pytest.mark.parametrize("name", TRAVEL)
def test_what_a_model_is_used_with_travels(name: str) -> None:
    assert needed(name, Needs())
    assert not never(name)


@pytest.mark.parametrize("name", STAY)
def test_what_it_is_not_used_with_stays(name: str) -> None:
    assert not needed(name, Needs())
    assert travelling([name], Needs(), (), ()).left_out == {name: never(name)}


@pytest.mark.parametrize("name", NEVER)
def test_what_never_travels(name: str) -> None:
    folder = Needs(modules=("sub", "logs", "wandb", "runs", "hooks"), code=(name,))
    assert travelling([name], folder, (), ()).names == ()
    with pytest.raises(CheckpointError, match="never travels"):
        travelling([name], Needs(), [name], ())


@pytest.mark.parametrize("name", [*TRAVEL, *STAY, "tokens_map.json", "tokenization_x.py", "keyboard.json"])
def test_no_ordinary_name_looks_secret(name: str) -> None:
    assert not looks_secret(name)


@pytest.mark.parametrize("names", TWINS.values(), ids=TWINS.keys())
def test_one_of_two_names_that_are_one_file_stays(names: tuple[str, ...]) -> None:
    found = travelling(names, Needs(code=names), (), ("README.md", "config.json"))
    assert len(found.names) <= 1
    assert set(found.names) | found.left_out.keys() == set(names)
    assert all("case does not matter" in why for why in found.left_out.values())


@pytest.mark.parametrize(
    ("names", "also"),
    [
        (["notes.txt", "NOTES.txt"], ["notes.txt", "NOTES.txt"]),
        (["Config.json"], ["Config.json"]),
        (["é.txt", "e\u0301.txt"], ["é.txt", "e\u0301.txt"]),
    ],
    ids=["two", "one that is written", "Unicode"],
)
def test_what_was_asked_for_does_not_stay_in_silence(names: list[str], also: list[str]) -> None:
    with pytest.raises(CheckpointError, match="the same file where case does not matter"):
        travelling(names, Needs(), also, ("README.md", "config.json"))


@pytest.mark.parametrize("name", ["", ".", "/", "..", "/etc/passwd", "x" * 5000])
def test_what_was_asked_for_and_is_no_name(name: str) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        travelling(["config.json"], Needs(), [name], ())


def test_why_a_file_that_was_asked_for_never_travels() -> None:
    """A source does not list hidden files: that there is none would be wrong."""
    with pytest.raises(CheckpointError, match=r"never travels \(hidden\)"):
        travelling(["config.json"], Needs(), [".env"], ())


@given(st.lists(st.sampled_from([*TRAVEL, *STAY, *NEVER]), unique=True), st.sets(st.sampled_from(STAY), max_size=3))
def test_every_name_is_decided_once(names: list[str], also: set[str]) -> None:
    found = travelling(names, Needs(), also & set(names), ())
    assert sorted([*found.names, *found.left_out]) == sorted(names)
    assert also & set(names) <= {*found.names, *(n for n, why in found.left_out.items() if "case" in why)}


@pytest.mark.slow
def test_also(run: Run, llama: Path, tmp_path: Path) -> None:
    """It is in the plan, which repeats it; verify expects it."""
    (llama / "notes.txt").write_text("mine")
    (llama / "sub").mkdir()
    (llama / "sub/x.json").write_text("{}")
    assert run(llama, "--out", "out", "--also", "notes.txt", "--also", "sub/x.json").returncode == 0
    assert (tmp_path / "out/notes.txt").read_text() == "mine"
    assert run("verify", "out", "--against", llama).returncode == 0
    assert run(llama, "--out", "again", "--plan", "out/gatenorm.json").returncode == 0
    assert (tmp_path / "again/sub/x.json").read_text() == "{}"
    record = json.loads((tmp_path / "out/gatenorm.json").read_text())
    assert record["also"] == ["notes.txt", "sub/x.json"]
    assert "--also notes.txt --also sub/x.json" in " ".join(run("explain", "out").stdout.split())
    refused = run(llama, "--out", "x", "--also", "note.txt")
    assert refused.stderr == "error: --also note.txt: the source has no such file; did you mean notes.txt?\n"
    for name in ("config.json", "model-00001-of-00002.safetensors", "gatenorm.json"):
        assert "the output has its own" in run(llama, "--out", "x", "--also", name).stderr
    assert "leave that out" in run(llama, "--out", "x", "--plan", "out/gatenorm.json", "--also", "notes.txt").stderr
    assert gatenorm_stream.plan(llama, layers=[1], also=["notes.txt"]).also == ("notes.txt",)


def test_also_beside_a_gguf(run: Run, tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "m.gguf", tensors(shapes(), "Q4_0"))
    done = run(model, "--out", "out.gguf", "--also", "notes.txt")
    assert done.stderr == (
        "error: --also notes.txt: one GGUF file comes out, and nothing beside it; leave that out\n"
    )


@pytest.mark.parametrize("also", ["notes.txt", [1], ["../x"], ["a//b"], [""], {"a": 1}, [None], ["/etc/passwd"]])
def test_a_plan_says_which_in_one_form(llama: Path, tmp_path: Path, also: object) -> None:
    plan = gatenorm_stream.plan(llama, layers=[1]).to_json()
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "also": also}))
    with pytest.raises(PlanError, match="also must be a list of names"):
        gatenorm_stream.read_plan(tmp_path / "plan.json")


IMPORTS = "from .a import (A,\n B)\nimport .b\nfrom .sub.c import C\nfrom .absent import x\n"
MODULES_JSON = "modules.json"
TOKENIZER, OWN = "tokenizer_config.json", "sentence_transformers.models"
CODE = {
    "the config": ({"auto_map": {"AutoConfig": "configuration_x.X"}}, {}, {"configuration_x.py"}),
    "a tokenizer's two": ({}, {TOKENIZER: {"auto_map": {"AutoTokenizer": ["a.A", "b.B"]}}}, {"a.py", "b.py"}),
    "one of two": ({}, {TOKENIZER: {"auto_map": {"AutoTokenizer": ["a.A", None]}}}, {"a.py"}),
    "a processor": ({}, {"preprocessor_config.json": {"auto_map": {"AutoImageProcessor": "b.B"}}}, {"b.py"}),
    "what it imports": ({"auto_map": {"AutoModel": "deep.X"}}, {}, {"deep.py", "a.py", "b.py", "sub/c.py"}),
    "another repository": ({"auto_map": {"AutoModel": "other/repo--a.X"}}, {}, set()),
    "a path out": ({"auto_map": {"AutoModel": "../a.X"}}, {}, set()),
    "no text": ({"auto_map": {"AutoModel": 3, "AutoConfig": {"a": 1}}}, {}, set()),
    "no map": ({"auto_map": "a.A"}, {TOKENIZER: []}, set()),
    "a module of one's own": (
        {},
        {MODULES_JSON: [{"path": "", "type": "custom_st.Transformer"}]},
        {"custom_st.py"},
    ),
    "a module of another's": ({}, {MODULES_JSON: [{"path": "", "type": "org/x--a.Transformer"}]}, set()),
    "the library's module": ({}, {MODULES_JSON: [{"path": "", "type": f"{OWN}.Dense"}]}, set()),
}


@pytest.mark.parametrize(("config", "files", "code"), CODE.values(), ids=CODE.keys())
def test_code_that_configs_name(llama: Path, config: dict[str, Any], files: dict[str, Any], code: set[str]) -> None:
    (llama / "config.json").write_text(json.dumps(llama_config(**config)))
    for name, content in files.items():
        (llama / name).write_text(json.dumps(content))
    (llama / "sub").mkdir()
    for name in ("a.py", "b.py", "unnamed.py", "configuration_x.py", "custom_st.py"):
        (llama / name).write_text("import os\nfrom transformers import AutoModel\n")
    (llama / "sub/c.py").write_text("from .c import C")
    (llama / "deep.py").write_text(IMPORTS)
    with open_checkpoint(LocalSource(llama)) as checkpoint:
        needs = read_needs(checkpoint)
        there = [name for name in checkpoint.source.names() if name.endswith(".py")]
        assert set(travelling(there, needs, (), ()).names) == code


DENSE = {"idx": 1, "name": "1", "path": "1_Dense", "type": f"{OWN}.Dense"}
PICKLE = "1_Dense/pytorch_model.bin is a pickle"
MODULES = {
    "weights": ([DENSE], ("1_Dense/config.json", "1_Dense/model.safetensors"), ()),
    "a pickle": ([DENSE], ("1_Dense/config.json", "1_Dense/pytorch_model.bin"), (PICKLE,)),
    "not there": ([DENSE], (), ("nothing in 1_Dense",)),
    "without files": ([{"path": "3_Normalize", "type": f"{OWN}.Normalize"}], (), ()),
    "pooling": ([{"path": "1_Pooling", "type": f"{OWN}.Pooling"}], ("1_Pooling/config.json",), ()),
    "two deep": ([{"path": "query/0_Dense", "type": "x.y"}], ("query/0_Dense/model.safetensors",), ("no x.py",)),
    "hidden": ([{"path": ".ssh", "type": f"{OWN}.Dense"}], (), ()),
    "no list": ({"a": 1}, (), ()),
    "odd entries": ([3, None, {"path": 7}, {"type": ["x"]}], (), ()),
}


@pytest.mark.parametrize(("modules", "files", "lacks"), MODULES.values(), ids=MODULES.keys())
def test_module_folders(
    run: Run, llama: Path, tmp_path: Path, modules: object, files: tuple[str, ...], lacks: tuple[str, ...]
) -> None:
    (llama / "modules.json").write_text(json.dumps(modules))
    for name in files:
        (llama / name).parent.mkdir(parents=True, exist_ok=True)
        write_shard(llama / name, {"linear.weight": ("F32", (2, 2), np.zeros(4, "<f4").tobytes())})
    done = run(llama, "--out", "out", "--layers", "1")
    assert done.returncode == 0, done.stderr
    there = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*/*") if p.is_file()}
    assert there == {name for name in files if not name.endswith(".bin")}
    said = " ".join(done.stdout.split())
    assert all(line in said for line in lacks)
    assert ("caution: the source" in said or "is a pickle" in said) == bool(lacks)
    assert run("verify", "out", "--against", llama).returncode == 0


WHOLE = ("config.json", "tokenizer.json", "tokenizer_config.json")
LACKING: dict[str, tuple[tuple[str, ...], Needs, dict[str, Any], tuple[str, ...]]] = {
    "all there": (WHOLE, Needs(), {}, ()),
    "no tokenizer": (("config.json",), Needs(), {}, ("no tokenizer",)),
    "its config alone": (("tokenizer_config.json", "special_tokens_map.json"), Needs(), {}, ("no tokenizer",)),
    "sentencepiece": (("tokenizer.model",), Needs(), {}, ()),
    "another's sentencepiece": (("sentencepiece.bpe.model",), Needs(), {}, ()),
    "tiktoken": (("qwen.tiktoken",), Needs(), {}, ()),
    "mistral": (("tekken.json",), Needs(), {}, ()),
    "word pieces": (("vocab.txt",), Needs(), {}, ()),
    "code": (WHOLE, Needs(code=("a.py",)), {}, ("no a.py, which its configs name",)),
    "a module": (WHOLE, Needs(modules=("1_Dense",)), {}, ("nothing in 1_Dense, which modules.json names",)),
    "a processor": (WHOLE, Needs(), {"vision_config": {}}, ("no preprocessor_config.json",)),
    "with a processor": ((*WHOLE, "preprocessor_config.json"), Needs(), {"vision_config": {}}, ()),
}


@pytest.mark.parametrize(("names", "needs", "config", "lines"), LACKING.values(), ids=LACKING.keys())
def test_what_the_source_lacks_is_said(
    names: tuple[str, ...], needs: Needs, config: dict[str, Any], lines: tuple[str, ...]
) -> None:
    assert missing(names, needs, config) == lines
