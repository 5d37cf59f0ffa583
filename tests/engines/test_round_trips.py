"""What people do with a model in transformers, done with pruned ones of both formats that leave attention out."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    pipeline,
)

from tests.engines import stock
from tests.engines.case import Case

pytestmark = pytest.mark.engines
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=["no-op", "transformers"])
def output(request, sotu, qwen3, prune) -> Case:
    source, layers = (sotu, (1, 6, 11)) if request.param == "no-op" else (qwen3, (0, 2))
    return Case(source, layers, prune(source, layers, "--format", request.param))


def load(path, **options):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, trust_remote_code=True, **options).eval()


@pytest.fixture
def model(output):
    return load(output.out)


@pytest.fixture(scope="module")
def expected(output, reference, ids):
    return stock.logits(reference(output.source, output.layers), ids)


def test_a_gradient_step(model, ids):
    batch = torch.tensor([ids])
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(3):
        loss = model(batch, labels=batch).loss
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_saved_in_shards_and_loaded_again(model, expected, ids, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="500KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert stock.largest_difference(stock.logits(load(tmp_path), ids), expected) <= TOLERANCE


def test_low_rank_adaptation(output, model, expected, ids, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj", "up_proj"], r=2)
    adapted = get_peft_model(model, config)
    names = [name for name, _ in adapted.named_modules() if name.endswith("q_proj.lora_A.default")]
    assert len(names) == model.config.num_hidden_layers - len(output.layers)
    batch = torch.tensor([ids])
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.02)
    changed = stock.logits(adapted.eval(), ids)
    assert stock.largest_difference(changed, expected) > TOLERANCE
    adapted(batch, labels=batch).loss.backward()
    adapted.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(load(output.out), tmp_path).eval()
    assert stock.largest_difference(stock.logits(again, ids), changed) <= TOLERANCE
    merged = again.merge_and_unload()
    assert stock.largest_difference(stock.logits(merged, ids), changed) <= TOLERANCE


def test_compiled(model, expected, ids):
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert stock.largest_difference(stock.logits(compiled, ids), expected) <= TOLERANCE


def test_pipeline(output, model, tokenizer, reference):
    generate = pipeline("text-generation", model=model, tokenizer=tokenizer)
    prompt = "Fellow citizens of the Senate"
    text = generate(prompt, max_new_tokens=8, min_new_tokens=8, do_sample=False, return_full_text=False)
    ids = tokenizer(prompt).input_ids
    wanted = stock.greedy(reference(output.source, output.layers), ids, 8)[len(ids) :]
    assert text[0]["generated_text"].strip() == tokenizer.decode(wanted, skip_special_tokens=True).strip()


def test_pipeline_by_name(output):
    generate = pipeline("text-generation", model=str(output.out), trust_remote_code=True)
    assert type(generate.model).__name__ in ("LlamaForCausalLM", "Qwen3ForCausalLM")
    assert generate("Fellow", max_new_tokens=2)[0]["generated_text"].startswith("Fellow")


def test_device_map(output, expected, ids):
    model = load(output.out, device_map="auto")
    assert stock.largest_difference(stock.logits(model, ids), expected) <= TOLERANCE


def test_loaded_in_8_bits(output, expected, ids):
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    model = load(output.out, quantization_config=TorchAoConfig(Int8WeightOnlyConfig()))
    assert "Int8" in type(model.get_decoder().layers[3].mlp.up_proj.weight).__name__
    relative = stock.largest_difference(stock.logits(model, ids), expected) / abs(expected).max()
    assert TOLERANCE < relative < 0.1


def test_beam_search(output, model, reference, ids):
    options = {"num_beams": 3}
    wanted = stock.greedy(reference(output.source, output.layers), ids, 8, **options)
    assert stock.greedy(model, ids, 8, **options) == wanted


def test_static_cache(output, model, reference, ids):
    wanted = stock.greedy(reference(output.source, output.layers), ids, 8)
    assert stock.greedy(model, ids, 8, cache_implementation="static") == wanted


def test_the_body_without_the_head(output, reference, ids):
    body = AutoModel.from_pretrained(output.out, dtype=torch.float32, trust_remote_code=True).eval()
    whole = reference(output.source, output.layers)
    batch = torch.tensor([ids])
    with torch.no_grad():
        wanted = whole.base_model(batch).last_hidden_state
        assert torch.allclose(body(batch).last_hidden_state, wanted, atol=TOLERANCE)


def test_made_anew_from_its_config(output):
    """Random weights, but no attention where it was removed."""
    config = AutoConfig.from_pretrained(output.out, trust_remote_code=True)
    model = AutoModelForCausalLM.from_config(config, trust_remote_code=True)
    for index, layer in enumerate(model.model.layers):
        assert bool(list(layer.self_attn.parameters())) == (index not in output.layers)


def test_a_class_that_does_not_know_it_refuses(output):
    with pytest.raises(ValueError, match="Unrecognized configuration class"):
        AutoModelForSequenceClassification.from_pretrained(output.out, trust_remote_code=True)


@pytest.mark.parametrize("trust", [False, None])
def test_is_refused_without_trust(output, trust, monkeypatch):
    """Rather than loaded as the stock model with random attention. With `None`, transformers asks."""
    monkeypatch.setattr("builtins.input", lambda *_: "n")
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForCausalLM.from_pretrained(output.out, **({} if trust is None else {"trust_remote_code": trust}))


IMPORTED = """
import json, sys, torch
import gatenorm_stream.runtime
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, trust_remote_code=False).eval()
assert type(model).__mro__[1].__module__ == "gatenorm_stream.runtime.modeling_gatenorm"
with torch.no_grad():
    print(json.dumps(model(torch.tensor([json.loads(sys.argv[2])])).logits[0].tolist()))
"""


def test_without_trust_where_the_package_is_imported(output, expected, ids):
    command = [sys.executable, "-c", IMPORTED, output.out, json.dumps(ids)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert abs(torch.tensor(json.loads(done.stdout)).numpy() - expected).max() <= TOLERANCE


def test_tokenizer_without_trust(output):
    assert AutoTokenizer.from_pretrained(output.out)("Fellow citizens").input_ids
