"""A word such as bnb-4bit -> transformers' quantization config, or a sentence why not.

Two kinds of words. bnb-*, fp8 and torchao-* quantize plain weights while they are loaded. gptq and awq name a
checkpoint that somebody quantized before; its config.json says how, and the word only has to agree with it.
Nothing heavy is imported until a config is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

BNB = {"bitsandbytes": "bitsandbytes"}
TORCHAO = {"torchao": "torchao"}
PACKAGES: Mapping[str, Mapping[str, str]] = {
    "bnb-8bit": BNB,
    "bnb-4bit": BNB,
    "bnb-4bit-fp4": BNB,
    "gptq": {"gptqmodel": "gptqmodel", "optimum": "optimum"},
    "awq": {"gptqmodel": "gptqmodel"},
    "fp8": {"kernels": "kernels"},
    "torchao-int8": TORCHAO,
    "torchao-int8-dynamic": TORCHAO,
    "torchao-int4": TORCHAO,
    "torchao-fp8": TORCHAO,
}
"""Every word, with the modules it needs beyond the server's own and the packages that bring them."""
STORED = {"bnb": "bitsandbytes", "torchao": "torchao", "gptq": "gptq", "awq": "awq", "fp8": "fp8"}
"""What config.json's quant_method is called for the words that begin so."""
MADE_BEFORE = ("gptq", "awq")
NEEDS_CUDA = {"fp8": (8, 9), "torchao-fp8": (8, 9), "torchao-int4": (8, 0)}
"""Words that no CPU can do, and the compute capability that they take."""


class Disagreement(Exception):
    """The word does not fit the checkpoint or the device. The message is a sentence."""


def stored_method(config: Any) -> str | None:
    """The quant_method that a checkpoint's config.json names, None for plain weights."""
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return None
    return str(stored.get("quant_method") if isinstance(stored, dict) else getattr(stored, "quant_method", stored))


def check(word: str | None, stored: str | None, model: str) -> None:
    """Raises Disagreement where the word and the checkpoint say different things. None takes what is stored."""
    if word is None:
        return
    if word == "none" and stored is not None:
        raise Disagreement(
            f"--quantization none: the weights of {model} are stored in {stored} (config.json); leave the option out "
            "to run them so, or give the plain model."
        )
    if word == "none":
        return
    wanted = STORED[word.split("-")[0]]
    if stored is not None and stored != wanted:
        raise Disagreement(
            f"--quantization {word}: config.json of {model} says that its weights are {stored}; leave the option out "
            "to run them so, or give the plain model."
        )
    if stored is not None and word not in MADE_BEFORE:
        raise Disagreement(
            f"--quantization {word} quantizes plain weights, and those of {model} are stored in {stored} already; "
            "leave the option out."
        )
    if stored is None and word in MADE_BEFORE:
        raise Disagreement(
            f"--quantization {word}: config.json of {model} names no quantization, and {word} needs a checkpoint that "
            "was quantized before; make one with scripts/quantize, or take bnb-4bit, which quantizes while loading."
        )


def check_device(word: str, device: str) -> None:
    """Raises Disagreement for a device that cannot do the word."""
    import torch

    if word not in NEEDS_CUDA:
        return
    least = NEEDS_CUDA[word]
    have = torch.cuda.get_device_capability(device) if device.startswith("cuda") else None
    if have is None or have < least:
        seen = f"compute capability {have[0]}.{have[1]}" if have else "no CUDA device"
        raise Disagreement(
            f"--quantization {word} needs a GPU of compute capability {least[0]}.{least[1]} or higher, and {device} "
            f"has {seen}; take bnb-8bit or torchao-int8."
        )


def config_for(word: str, dtype: Any) -> Any:
    """transformers' config for a word that quantizes while loading; bnb computes its 4-bit products in ``dtype``."""
    hub: Any = importlib.import_module("transformers")
    if word == "bnb-8bit":
        return hub.BitsAndBytesConfig(load_in_8bit=True)
    if word in ("bnb-4bit", "bnb-4bit-fp4"):
        kind = "fp4" if word.endswith("fp4") else "nf4"
        return hub.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_compute_dtype=dtype)
    if word == "fp8":
        return hub.FineGrainedFP8Config()
    return hub.TorchAoConfig(_torchao(word))


def _torchao(word: str) -> Any:
    """torchao's own config. Four bits are packed as the kernel in torch itself reads them: the others need packages."""
    ao: Any = importlib.import_module("torchao.quantization")
    if word == "torchao-int8":
        return ao.Int8WeightOnlyConfig()
    if word == "torchao-int8-dynamic":
        return ao.Int8DynamicActivationInt8WeightConfig()
    if word == "torchao-fp8":
        return ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow())
    return ao.Int4WeightOnlyConfig(group_size=128, int4_packing_format="tile_packed_to_4d")
