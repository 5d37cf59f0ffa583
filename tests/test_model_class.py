"""The class of an output's model is the source's, or the plan says in words why not: members of the kind.

tests/families/test_model_class.py runs the heads of every family in transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gatenorm_stream
from gatenorm_stream.errors import FormatError, UnsupportedModelError
from gatenorm_stream.families.open import open_model
from gatenorm_stream.formats.choice import FormatChoice, choose_format, describe
from gatenorm_stream.measuring.open import open_decoder
from gatenorm_stream.sources.open import open_source
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint, write_shard
from tests.conftest import Run

SHAPES = llama_shapes()
BODY = {name: shape for name, shape in SHAPES.items() if not name.startswith("lm_head.")}
BARE = {name.removeprefix("model."): shape for name, shape in BODY.items()}
SCORE = {**BODY, "score.weight": (3, 32)}
OWN = {"AutoModelForCausalLM": "modeling_dropped.DroppedLlama"}
OTHERS = {"llama.cpp", "mlx-lm", "vllm", "sglang"}


def named(architecture: object, **changes: Any) -> dict[str, Any]:
    return llama_config(architectures=architecture, **changes)


def prefixed(prefix: str) -> dict[str, tuple[int, ...]]:
    return {prefix + name: shape for name, shape in SHAPES.items()}


def write(folder: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Path:
    return write_checkpoint(folder / "source", random_tensors(shapes), config)


def choose(source: Path, *args: Any, **options: Any) -> FormatChoice:
    with open_model(open_source(source)) as model:
        return choose_format(model, (1,), *args, **options)


def said(choice: FormatChoice) -> str:
    return "\n".join(
        (*(describe(o) for _, o in choice.passed_over), *map(describe, choice.limits), *choice.cautions)
    )


KEPT = {
    "language model": (named(["LlamaForCausalLM"]), SHAPES, "no-op", "AutoModelForCausalLM"),
    "nothing said": (named(None), SHAPES, "no-op", "AutoModelForCausalLM"),
    "empty list": (named([]), SHAPES, "no-op", "AutoModelForCausalLM"),
    "classifier": (named(["LlamaForSequenceClassification"]), SCORE, "transformers", "SequenceClassification"),
    "reward model": (named(["LlamaForSequenceClassification"], num_labels=1), SCORE, "transformers", "Sequence"),
    "each token": (named(["LlamaForTokenClassification"]), SCORE, "transformers", "TokenClassification"),
    "answers": (
        named(["LlamaForQuestionAnswering"]),
        {**{f"transformer.{name}": shape for name, shape in BARE.items()}, "qa_outputs.weight": (2, 32)},
        "transformers",
        "QuestionAnswering",
    ),
    "embedding model": (named(["LlamaModel"]), BARE, "transformers", "AutoModel"),
    "Qwen 3 embedding": (named(["LlamaForCausalLM"], tie_word_embeddings=True), BARE, "transformers", "CausalLM"),
    "both ways": (named(["LlamaModel"], is_causal=False), BARE, "transformers", "AutoModel"),
    "value head": (named(["LlamaForCausalLM"]), {**SHAPES, "v_head.weight": (1, 32)}, "transformers", "CausalLM"),
    "no length": (named(["LlamaForCausalLM"], max_position_embeddings=...), SHAPES, "no-op", "CausalLM"),
}


@pytest.mark.parametrize(("config", "shapes", "form", "auto"), KEPT.values(), ids=KEPT)
def test_kept(
    config: dict[str, Any], shapes: dict[str, tuple[int, ...]], form: str, auto: str, tmp_path: Path
) -> None:
    source, out = write(tmp_path, config, shapes), tmp_path / "out"
    assert choose(source).format.name == form
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[1]), out)
    made = json.loads((out / "config.json").read_text())
    wanted = {"AutoModelForCausalLM"} if "CausalLM" in auto else {name for name in made["auto_map"] if auto in name}
    assert wanted
    assert set(made["auto_map"]) == {"AutoConfig", "AutoModel", *wanted}
    architecture = (config.get("architectures") or ["LlamaForCausalLM"])[0]
    assert made["gatenorm"]["architecture"] == architecture
    gatenorm_stream.verify(out, against=source)


def test_the_class_says_what_the_config_does_not(tmp_path: Path) -> None:
    config = named(["LlamaForCausalLM"], max_position_embeddings=..., max_sequence_length=64)
    source = write(tmp_path, config, SHAPES)
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[1]), tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["max_position_embeddings"] == 2048


ZEROED = {
    "dropped layers": (named(["LlamaForCausalLM"], auto_map=OWN), SHAPES, "auto_map=modeling_dropped.DroppedLlama"),
    "same name, other code": (
        named(["LlamaForCausalLM"], auto_map={"AutoModel": "modeling_both_ways.LlamaModel"}),
        SHAPES,
        "auto_map=modeling_both_ways.LlamaModel",
    ),
    "unknown head": (named(["LlamaForMaskedLM"]), SHAPES, "['LlamaForMaskedLM']"),
    "unknown body": (named(["LlamaBidirectionalModel"]), BARE, "['LlamaBidirectionalModel']"),
    "another's classifier": (named(["Qwen2ForSequenceClassification"]), SCORE, "Qwen2ForSequenceClassification"),
    "reward class": (named(["LlamaForRewardModel"], num_labels=1), SCORE, "['LlamaForRewardModel']"),
    "no text": (named([7, "LlamaForCausalLM"], auto_map={"AutoModel": 7}), SHAPES, "auto_map=7"),
}


@pytest.mark.parametrize(("config", "shapes", "words"), ZEROED.values(), ids=ZEROED)
def test_a_class_that_the_output_could_not_have_is_not_replaced(
    config: dict[str, Any], shapes: dict[str, tuple[int, ...]], words: str, tmp_path: Path
) -> None:
    source = write(tmp_path, config, shapes)
    choice = choose(source)
    assert choice.format.name == "zeroed"
    assert words in said(choice)
    for form in ("no-op", "transformers"):
        with pytest.raises(FormatError, match="--format zeroed"):
            choose(source, form)
    if "auto_map" in config:
        assert not OTHERS & set(choice.engines)
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[1]), tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text()) == config


def test_code_that_transformers_took_over_is_said(tmp_path: Path) -> None:
    auto_map = {
        "AutoConfig": "configuration_stablelm.StableLmConfig",
        "AutoModelForCausalLM": "modeling_stablelm.StableLmForCausalLM",
        "AutoTokenizer": ["tokenization_arcade.ArcadeTokenizer", None],
    }
    config = named(["StableLmForCausalLM"], model_type="stablelm", auto_map=auto_map)
    source = write(tmp_path, config, SHAPES)
    choice = choose(source)
    assert choice.format.name == "transformers"
    assert "own code (modeling_stablelm.StableLmForCausalLM); the output runs transformers'" in said(choice)
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[1]), tmp_path / "out")
    made = json.loads((tmp_path / "out/config.json").read_text())["auto_map"]
    assert made["AutoTokenizer"] == auto_map["AutoTokenizer"]
    assert made["AutoConfig"] == "modeling_gatenorm.GateNormConfig"


def test_a_language_model_of_another_name_is_said(tmp_path: Path) -> None:
    old = write(tmp_path, named(["LLaMAForCausalLM"]), SHAPES)
    assert "names the class" not in said(choose(old))
    other = write(tmp_path / "other", named(["TinyForCausalLM"]), SHAPES)
    assert "names the class TinyForCausalLM; the output runs transformers' LlamaForCausalLM" in said(choose(other))


ENGINES = {
    "score head in llama.cpp": (named(["LlamaForSequenceClassification"]), SCORE, "llama.cpp"),
    "score head in mlx-lm": (named(["LlamaForSequenceClassification"]), SCORE, "mlx-lm"),
    "score head in vllm": (named(["LlamaForSequenceClassification"]), SCORE, "vllm"),
    "bare names in mlx-lm": (named(["LlamaModel"]), BARE, "mlx-lm"),
    "bare names in llama.cpp": (named(["LlamaForCausalLM"]), BARE, "llama.cpp"),
    "both ways in vllm": (named(["LlamaForCausalLM"], is_causal=False), SHAPES, "vllm"),
    "own class in sglang": (named(["LlamaForCausalLM"], auto_map=OWN), SHAPES, "sglang"),
    "value head in mlx-lm": (named(["LlamaForCausalLM"]), {**SHAPES, "v_head.weight": (1, 32)}, "mlx-lm"),
}


@pytest.mark.parametrize(("config", "shapes", "engine"), ENGINES.values(), ids=ENGINES)
def test_engines_that_do_not_run_it_are_not_claimed(
    config: dict[str, Any], shapes: dict[str, tuple[int, ...]], engine: str, tmp_path: Path
) -> None:
    source = write(tmp_path, config, shapes)
    assert engine not in choose(source).engines
    with pytest.raises(FormatError):
        choose(source, engines=(engine,))
    assert "transformers" in choose(source, engines=("transformers",)).engines


@pytest.mark.parametrize(
    ("config", "shapes", "words"),
    [
        (named(["LlamaForSequenceClassification"]), SCORE, "LlamaForSequenceClassification"),
        (named(["LlamaModel"]), BARE, "LlamaModel"),
        (named(["LlamaForCausalLM"], auto_map=OWN), SHAPES, "auto_map=modeling_dropped"),
        (named(["LlamaForCausalLM"], is_causal=False), SHAPES, "later tokens"),
    ],
)
def test_no_loss_of_another_class_is_measured(
    config: dict[str, Any], shapes: dict[str, tuple[int, ...]], words: str, tmp_path: Path
) -> None:
    source = open_source(write(tmp_path, config, shapes))
    with open_model(source) as model, pytest.raises(UnsupportedModelError, match=words), open_decoder(model):
        pass


@pytest.mark.parametrize(
    ("rename", "words"),
    [
        (lambda name: f"_orig_mod.{name}", "'_orig_mod.' (torch.compile"),
        (lambda name: f"module.{name}", "'module.' (DataParallel"),
        (lambda name: f"module._orig_mod.{name}", "'module._orig_mod.' (torch.compile"),
        (lambda name: f"base_model.model.{name}", "'base_model.model.' (peft"),
        (lambda name: f"_fsdp_wrapped_module.{name}", "'_fsdp_wrapped_module.' (FSDP"),
        (lambda name: f"pretrained_model.{name}", "'pretrained_model.' (trl"),
        (lambda name: f"student.{name}", "'student.', which"),
        (lambda name: f"encoder.{name.removeprefix('model.')}", "'encoder.', which"),
        (lambda name: name.replace("proj.", "proj.base_layer."), "base_layer is what peft calls"),
        (lambda name: f"base_model.model.{name.replace('q_proj.', 'q_proj.base_layer.')}", "merge_and_unload"),
    ],
)
def test_names_of_what_wrapped_the_model_are_explained(
    rename: Callable[[str], str], words: str, tmp_path: Path
) -> None:
    source = write(tmp_path, llama_config(), {rename(name): shape for name, shape in SHAPES.items()})
    with pytest.raises(UnsupportedModelError) as refused:
        gatenorm_stream.score(source)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


DENSE = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    {"idx": 3, "name": "3", "path": "3_Dense/", "type": "sentence_transformers.models.Dense"},
]


@pytest.mark.parametrize("modules", [DENSE, {}, "broken", [7, {"path": 7}], None])
def test_the_modules_of_sentence_transformers_travel(modules: Any, tmp_path: Path) -> None:
    """Only with the modules.json that names them (tests/test_travelling.py has the rest of the list)."""
    source, out = write(tmp_path, named(["LlamaModel"]), BARE), tmp_path / "out"
    weights = {"linear.weight": ("F32", (4, 32), np.ones((4, 32), "<f4").tobytes())}
    for folder in ("1_Pooling", "2_Dense", "3_Dense"):
        (source / folder).mkdir()
        (source / folder / "config.json").write_text("{}")
    write_shard(source / "2_Dense/model.safetensors", weights)
    write_shard(source / "3_Dense/model.safetensors", weights)
    if modules is not None:
        text = modules if isinstance(modules, str) else json.dumps(modules)
        (source / "modules.json").write_text(text)
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[1]), out)
    for name in ("1_Pooling/config.json", "2_Dense/model.safetensors", "3_Dense/model.safetensors"):
        assert (out / name).exists() == (modules is DENSE)
        if modules is DENSE:
            assert (out / name).read_bytes() == (source / name).read_bytes()
    gatenorm_stream.verify(out, against=source)


def test_the_command_says_it(tmp_path: Path, run: Run) -> None:
    source = write(tmp_path, named(["LlamaForSequenceClassification"], num_labels=1), SCORE)
    done = run(source, "--layers", "1", "--out", "out", COLUMNS="200")
    assert "architecture LlamaForSequenceClassification" in done.stdout
    card = (tmp_path / "out/README.md").read_text()
    assert "AutoModelForSequenceClassification.from_pretrained" in card
    assert "model.generate" not in card
    assert "llama.cpp" not in card.partition("## How to run it")[2].partition(".")[0]
