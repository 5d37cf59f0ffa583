"""Multimodal models: their text part is scored and pruned, and they run in transformers with text and images."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

import gatenorm_stream
from gatenorm_stream.families.wrappers import WRAPPERS
from tests.conftest import COMMAND, FIXTURE
from tests.families import tiny
from tests.families.absence import assert_attention_is_absent, assert_cache_only_where_attention_is
from tests.families.wrapper_cases import CASES, RESERVED, WrapperCase

pytestmark = pytest.mark.engines
TOLERANCE = 1e-4
NEW = 8
GREEDY = {
    "max_new_tokens": NEW,
    "min_new_tokens": NEW,
    "do_sample": False,
    "pad_token_id": 0,
    "suppress_tokens": list(RESERVED),
}


def droppable(case: WrapperCase) -> tuple[int, ...]:
    """The first and the last, but not all."""
    first, *_, last = case.attention
    return (first, last) if len(case.attention) > 2 else (first,)


def of(name: str) -> WrapperCase:
    return next(case for case in CASES if str(case) == name)


def test_every_wrapper_has_a_case():
    assert {case.wrapper for case in CASES} == set(WRAPPERS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_scores_are_those_of_the_modules_own_heads(case, checkpoint):
    path = checkpoint(case)
    model = tiny.load(path, case)
    for reading in ("per-head", "joint", "stored"):
        scores = gatenorm_stream.score(path, reading=reading)
        assert [s.layer for s in scores] == list(case.attention)
        for s in scores:
            assert s.score == pytest.approx(tiny.scores(*tiny.heads(model, s.layer))[reading], rel=1e-5)


@torch.no_grad()
def compared(stock, model, case: WrapperCase, layers: tuple[int, ...]) -> float:
    """The largest difference to the silenced model; the pruning itself changes a hundred times as much."""
    differences = []
    for image in (False, True):
        inputs = case.inputs(image)
        whole, actual = stock(**inputs).logits, model(**inputs).logits
        with tiny.silenced(stock, layers):
            expected = stock(**inputs).logits
            texts = [stock.generate(**inputs, use_cache=cached, **GREEDY).tolist() for cached in (True, False)]
        differences.append(float((actual - expected).abs().max()))
        assert differences[-1] <= TOLERANCE * float(expected.abs().max())
        assert float((whole - expected).abs().max()) > 100 * TOLERANCE
        uncached = model.generate(**inputs, use_cache=False, **GREEDY)
        cached = model.generate(**inputs, return_dict_in_generate=True, **GREEDY)
        assert [cached.sequences.tolist(), uncached.tolist()] == texts
        length = inputs["input_ids"].shape[1] + NEW - 1
        assert_cache_only_where_attention_is(cached.past_key_values, length, case, layers)
    return max(differences)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pruned_equals_silenced(case, checkpoint, prune, cell, load_pruned):
    source, layers = checkpoint(case), droppable(case)
    out = prune(source, layers, "--format", "transformers")
    stock = tiny.load(source, case)
    model = load_pruned(out, case, stock)
    assert_attention_is_absent(model, case, layers)
    difference = compared(stock, model, case, layers)
    cell("transformers", transformers.__version__, case.wrapper, f"{case}, layers {layers}", difference)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES, ids=str)
def test_zeroed_equals_silenced(case, checkpoint, prune):
    source, layers = checkpoint(case), droppable(case)
    stock, model = tiny.load(source, case), tiny.load(prune(source, layers, "--format", "zeroed"), case)
    for image in (False, True):
        inputs = case.inputs(image)
        with tiny.silenced(stock, layers):
            expected = stock(**inputs).logits
        assert float((model(**inputs).logits - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("name", ["llava-llama", "gemma3-gemma3_text", "idefics3-llama", "qwen2_vl-qwen2"])
def test_saved_and_loaded_again(name, checkpoint, prune, tmp_path):
    case = of(name)
    out = prune(checkpoint(case), droppable(case), "--format", "transformers")
    model = tiny.load(out, case, trust_remote_code=True)
    model.save_pretrained(tmp_path)
    again = tiny.load(tmp_path, case, trust_remote_code=True)
    assert load_file(tmp_path / "model.safetensors").keys() == load_file(out / "model.safetensors").keys()
    assert torch.equal(again(**case.inputs(True)).logits, model(**case.inputs(True)).logits)


@torch.no_grad()
def test_left_padding(checkpoint, prune):
    case = of("llava-llama")
    out = prune(checkpoint(case), droppable(case), "--format", "transformers")
    model = tiny.load(out, case, trust_remote_code=True)
    inputs = case.inputs(True)
    tokens = inputs.pop("input_ids")
    padded, mask = (torch.nn.functional.pad(x, (5, 0)) for x in (tokens, torch.ones_like(tokens)))
    expected = model(input_ids=tokens, **inputs).logits
    actual = model(input_ids=padded, attention_mask=mask, **inputs).logits[:, 5:]
    assert float((actual - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())


@torch.no_grad()
def test_text_and_image_by_the_processor_of_the_source(sotu, prune, tmp_path):
    """As people load it: AutoProcessor on the output."""
    case, layers, image_token = of("llava-llama"), (0, 2), "<image>"
    tokenizer = transformers.AutoTokenizer.from_pretrained(sotu, extra_special_tokens={"image_token": image_token})
    images = transformers.CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    options = {"patch_size": 4, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    transformers.LlavaProcessor(images, tokenizer, image_token=image_token, **options).save_pretrained(tmp_path)
    text = {**case.options["text_config"], "vocab_size": len(tokenizer)}
    config = {**case.options, "text_config": text, "image_token_index": tokenizer.image_token_id}
    tiny.make(replace(case, options=config)).save_pretrained(tmp_path)

    out = prune(tmp_path, layers, "--format", "transformers")
    processor = transformers.AutoProcessor.from_pretrained(out, trust_remote_code=True)
    assert isinstance(processor, transformers.LlavaProcessor)
    image = Image.linear_gradient("L").convert("RGB")
    inputs = processor(images=image, text="The people <image> of the United", return_tensors="pt")
    assert int((inputs["input_ids"] == tokenizer.image_token_id).sum()) == 16
    stock, model = tiny.load(tmp_path, case), tiny.load(out, case, trust_remote_code=True)
    with tiny.silenced(stock, layers):
        expected = stock(**inputs).logits
    assert float((model(**inputs).logits - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())
    dark = processor(
        images=Image.new("RGB", image.size), text="The people <image> of the United", return_tensors="pt"
    )
    assert float((model(**dark).logits - expected).abs().max()) > 100 * TOLERANCE


def test_is_refused_without_trust(checkpoint, prune):
    case = of("llava-llama")
    out = prune(checkpoint(case), droppable(case), "--format", "transformers")
    with pytest.raises(ValueError, match="trust_remote_code"):
        tiny.load(out, case, trust_remote_code=False)


@pytest.mark.parametrize("format", ["transformers", "zeroed"])
def test_the_model_card_tells_how_to_run_it(format, tmp_path):
    case = of("llava-llama")
    text = {**case.options["text_config"], "vocab_size": 3072}
    source = tmp_path / "source"
    tiny.make(replace(case, options={**case.options, "text_config": text})).save_pretrained(source)
    for file in FIXTURE.glob("tokenizer*"):
        shutil.copy(file, source)
    subprocess.run([COMMAND, source, "--out", tmp_path / "pruned", "--format", format, "--quiet"], check=True)
    card = (tmp_path / "pruned/README.md").read_text("utf-8")
    assert re.findall("^### (.*)$", card, re.MULTILINE) == ["transformers"]
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert "AutoModelForImageTextToText" in code
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "The people" in done.stdout


def test_names_and_config_as_published(checkpoint, prune, tmp_path):
    """Qwen 2 VL and 2.5 VL were published with the text part's sizes at the top of config.json."""
    case = of("qwen2_vl-qwen2")
    config = json.loads((checkpoint(case) / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    text |= {"rope_theta": rope["rope_theta"], "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
    (tmp_path / "config.json").write_text(json.dumps({**text, **config}))
    tensors = load_file(checkpoint(case) / "model.safetensors")
    assert any(name.startswith("model.layers.") for name in tensors)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    out = prune(tmp_path, (0, 2), "--format", "transformers")
    compared(tiny.load(tmp_path, case), tiny.load(out, case, trust_remote_code=True), case, (0, 2))
