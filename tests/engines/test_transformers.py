"""transformers runs the `no-op` output through the file that travels along."""

import json
import logging
import multiprocessing
import pickle
import subprocess
import sys
import warnings
from contextlib import contextmanager

import cloudpickle
import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.engines import stock

pytestmark = pytest.mark.engines
TOLERANCE = 1e-4


@contextmanager
def no_messages():
    """Nothing is logged or warned meanwhile, of missing or newly initialised weights or of anything else."""
    messages = []

    class Collect(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())

    logger, handler = logging.getLogger("transformers"), Collect(logging.WARNING)
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield
    finally:
        logger.removeHandler(handler)
    messages += [str(warning.message) for warning in warned]
    assert not messages


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, trust_remote_code=True).eval()


@pytest.fixture(scope="module")
def model(pruned):
    return load(pruned.out)


def tensor_names(path) -> set[str]:
    return {name for file in path.glob("*.safetensors") for name in load_file(file)}


def test_equals_the_stock_model_without_that_attention(case, reference, ids, cell):
    with no_messages():
        model = load(case.out)
    expected = stock.logits(reference(case.source, case.layers), ids)
    whole = stock.logits(reference(case.source, ()), ids)
    assert stock.largest_difference(stock.logits(model, ids), expected) <= TOLERANCE
    assert stock.largest_difference(whole, expected) > 100 * TOLERANCE
    difference = stock.largest_difference(stock.logits(model, ids), expected)
    family, described = case.named
    cell("transformers", transformers.__version__, family, f"no-op {described}", difference)


def test_has_no_parameters_where_attention_was(case):
    model, pruned = load(case.out), case.layers
    for index, layer in enumerate(model.model.layers):
        parameters = [
            name for name, _ in layer.named_parameters() if name.startswith(("self_attn", "input_layernorm"))
        ]
        assert bool(parameters) == (index not in pruned)


@pytest.mark.parametrize("options", [{"use_cache": True}, {"cache_implementation": "static"}], ids=str)
def test_generates_the_same_with_and_without_cache(case, reference, ids, options):
    model = load(case.out)
    without = stock.greedy(model, ids, 16, use_cache=False)
    assert stock.greedy(model, ids, 16, **options) == without
    assert stock.greedy(reference(case.source, case.layers), ids, 16) == without


def test_pruned_layers_have_no_cache(model, pruned, ids):
    with torch.no_grad():
        cache = model(torch.tensor([ids]), use_cache=True).past_key_values
    assert cache.get_seq_length() == len(ids)
    for index, layer in enumerate(cache.layers):
        if index in pruned.layers:
            assert layer.keys is None
            assert layer.values is None
        else:
            assert layer.keys.shape[2] == layer.values.shape[2] == len(ids)


@torch.no_grad()
def test_left_padding_changes_nothing(model, ids):
    short, padding = ids[:9], len(ids) - 9
    batch = torch.tensor([ids, [0] * padding + short])
    mask = torch.tensor([[1] * len(ids), [0] * padding + [1] * len(short)])
    logits = model(batch, attention_mask=mask).logits
    assert stock.largest_difference(logits[0].numpy(), stock.logits(model, ids)) <= TOLERANCE
    assert stock.largest_difference(logits[1, padding:].numpy(), stock.logits(model, short)) <= TOLERANCE

    generated = model.generate(
        batch, attention_mask=mask, max_new_tokens=8, min_new_tokens=8, do_sample=False, pad_token_id=0
    )
    assert generated[0].tolist() == stock.greedy(model, ids, 8)
    assert generated[1, padding:].tolist() == stock.greedy(model, short, 8)


def test_saved_and_loaded_again(case, ids, tmp_path):
    model = load(case.out)
    with no_messages():
        model.save_pretrained(tmp_path)
        again = load(tmp_path)
    assert stock.largest_difference(stock.logits(again, ids), stock.logits(model, ids)) == 0
    assert tensor_names(tmp_path) == tensor_names(case.out)
    before, after = (json.loads((path / "config.json").read_text()) for path in (case.out, tmp_path))
    for key in ("architectures", "model_type", "auto_map", "block_configs", "gatenorm", "rope_parameters"):
        assert after[key] == before[key]


def test_config_travels_to_another_process(model):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        config = pickle.loads(pool.apply(pickle.dumps, (model.config,)))
    assert config == model.config
    assert type(config) is type(model.config)


def test_config_travels_by_value(model, pruned, tmp_path):
    """To a process that lacks this file's module: so vLLM hands a config to its workers."""
    import transformers_modules  # the package that transformers makes of code beside checkpoints

    cloudpickle.register_pickle_by_value(transformers_modules)
    try:
        (tmp_path / "config").write_bytes(cloudpickle.dumps(model.config))
    finally:
        cloudpickle.unregister_pickle_by_value(transformers_modules)
    read = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).gatenorm['pruned_layers'])"
    done = subprocess.run([sys.executable, "-c", read, tmp_path / "config"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{list(pruned.layers)}\n"


def test_block_configs_are_attributes(pruned):
    """As vLLM reads them."""
    config = AutoConfig.from_pretrained(pruned.out, trust_remote_code=True)
    no_op = [block.attention.no_op for block in config.block_configs]
    assert no_op == [layer in pruned.layers for layer in range(12)]
    assert (config.model_type, config.architectures) == ("nemotron-nas", ["DeciLMForCausalLM"])
    with pytest.raises(AttributeError):
        _ = config.block_configs[0].attention.window


def test_tokenizer_travels_along(pruned, tokenizer):
    with no_messages():
        copied = AutoTokenizer.from_pretrained(pruned.out, trust_remote_code=True)
    assert copied("Fellow citizens").input_ids == tokenizer("Fellow citizens").input_ids


def test_is_refused_without_trust(pruned):
    """Rather than loaded as a stock Llama with random attention."""
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForCausalLM.from_pretrained(pruned.out, trust_remote_code=False)


def test_layer_0(sotu, prune, reference, ids):
    out = prune(sotu, (0,), "--engine", "transformers", "--engine", "mlx-lm")
    model = load(out)
    expected = stock.logits(reference(sotu, (0,)), ids)
    assert stock.largest_difference(stock.logits(model, ids), expected) <= TOLERANCE
    assert stock.greedy(model, ids, 8) == stock.greedy(model, ids, 8, use_cache=False)
