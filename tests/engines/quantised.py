"""The fixture model as people have it quantised: by the libraries, or laid out by hand as they document it.

Each function writes a checkpoint into a directory that does not exist yet.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

GROUP = 64
BESIDE = ("tokenizer.json", "tokenizer_config.json")


def bitsandbytes_4bit(source: Path, out: Path) -> None:
    from transformers import BitsAndBytesConfig

    load(
        source, quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    ).save_pretrained(out)


def bitsandbytes_8bit(source: Path, out: Path) -> None:
    from transformers import BitsAndBytesConfig

    load(source, quantization_config=BitsAndBytesConfig(load_in_8bit=True)).save_pretrained(out)


def torchao_int8(source: Path, out: Path) -> None:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    load(source, quantization_config=TorchAoConfig(Int8WeightOnlyConfig(version=2))).save_pretrained(out)


def compressed_tensors_int4(source: Path, out: Path) -> None:
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        QuantizationStatus,
        apply_quantization_config,
    )

    model = load(source)
    weights = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=GROUP)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    apply_quantization_config(
        model,
        QuantizationConfig(
            config_groups={"group_0": scheme},
            ignore=["lm_head"],
            format="pack-quantized",
            quantization_status="frozen",
        ),
    )
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            module.weight_scale.data = groups(module.weight).abs().amax(-1) / 7
            module.quantization_status = QuantizationStatus.FROZEN
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(out)
    compressor.update_config(out)


def fp8_blocks(source: Path, out: Path) -> None:
    """As DeepSeek stores it, by hand: transformers makes it on a GPU only."""

    def blocks(name: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        rows, columns = weight.shape
        down, right = -(-rows // GROUP), -(-columns // GROUP)
        padded = torch.zeros(down * GROUP, right * GROUP)
        padded[:rows, :columns] = weight
        laid = padded.reshape(down, GROUP, right, GROUP)
        scale = laid.abs().amax((1, 3)) / 448
        small = (laid / scale[:, None, :, None]).reshape(padded.shape)[:rows, :columns]
        return {f"{name}weight": small.to(torch.float8_e4m3fn), f"{name}weight_scale_inv": scale}

    given = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [GROUP, GROUP]}
    write(source, out, blocks, given)


def gptq(source: Path, out: Path) -> None:
    """By hand, as gptqmodel reads it: eight rows of the input to a number of 32 bits, zero points less one."""

    def packed(name: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        codes, scale = four_bits(weight)
        rows, columns = weight.shape
        return {
            f"{name}qweight": together(codes.T.reshape(columns // 8, 8, rows).swapaxes(1, 2), range(8)),
            f"{name}qzeros": zero_points(columns // GROUP, rows // 8, 0x77777777),
            f"{name}scales": scale.T.half(),
            f"{name}g_idx": (torch.arange(columns) // GROUP).int(),
        }

    given = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True}
    write(source, out, packed, {**given, "checkpoint_format": "gptq"})


def awq(source: Path, out: Path) -> None:
    """By hand, as AutoAWQ's form `gemm` has it: eight rows of the output to a number, in an order of its own."""

    def packed(name: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        codes, scale = four_bits(weight)
        rows, columns = weight.shape
        return {
            f"{name}qweight": together(codes.T.reshape(columns, rows // 8, 8), (0, 2, 4, 6, 1, 3, 5, 7)),
            f"{name}qzeros": zero_points(columns // GROUP, rows // 8, 0x88888888),
            f"{name}scales": scale.T.half(),
        }

    given = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}
    write(source, out, packed, given)


def load(source: Path, **options):
    return AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **options).eval()


def groups(weight: torch.Tensor) -> torch.Tensor:
    return weight.reshape(len(weight), -1, GROUP)


def four_bits(weight: torch.Tensor) -> tuple[np.ndarray, torch.Tensor]:
    """Codes of 0 to 15 around 8, and the scale of each group."""
    scale = (groups(weight).abs().amax(-1) / 7).clamp(min=1e-6)
    codes = (torch.round(groups(weight) / scale[..., None]) + 8).clamp(0, 15)
    return codes.reshape(weight.shape).numpy().astype(np.uint32), scale


def together(codes: np.ndarray, order) -> torch.Tensor:
    """(..., 8) codes of 4 bits as numbers of 32 bits, the first of `order` in the lowest bits."""
    numbers = sum(codes[..., code] << np.uint32(4 * place) for place, code in enumerate(order))
    return torch.from_numpy(np.ascontiguousarray(numbers).astype(np.uint32).view(np.int32))


def zero_points(rows: int, columns: int, number: int) -> torch.Tensor:
    return torch.from_numpy(np.full((rows, columns), number, np.uint32).view(np.int32))


def write(source: Path, out: Path, quantise, given: dict) -> None:
    model = load(source)
    held: dict[str, torch.Tensor] = {}
    for name, weight in model.state_dict().items():
        if "_proj.weight" in name:
            held |= quantise(name.removesuffix("weight"), weight)
        elif name != "lm_head.weight" or not model.config.tie_word_embeddings:
            held[name] = weight
    out.mkdir()
    save_file({name: t.contiguous() for name, t in held.items()}, out / "model.safetensors", {"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "quantization_config": given}))
    for name in BESIDE:
        shutil.copy(source / name, out)
