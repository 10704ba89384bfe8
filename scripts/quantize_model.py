"""A local model in transformers' format -> the same model quantized: GGUF for llama.cpp, GPTQ or AWQ by GPTQModel.

In: a folder with config.json, safetensors and a tokenizer. Out: a GGUF file, or a folder that vLLM and the HF server
load with `quantization: gptq` (or awq). What is made appears whole or not at all. Nothing of loadgen is imported.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.machinery
import importlib.util
import json
import os
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quantize_gguf import Unusable, convert

PROMPTS = Path(__file__).resolve().parents[1] / "loadgen" / "workloads" / "natural.jsonl"
NEEDED = {"gguf": ("gguf",), "gptq": ("gptqmodel",), "awq": ("gptqmodel",)}
FORMATS = ("gguf-f16", "gguf-q8_0", "gguf-q4_0", "gptq", "awq")


def main() -> int:
    """The program. 0 made, 2 with a sentence where an input cannot be used."""
    parser = argparse.ArgumentParser(prog="scripts/quantize", description="Make a quantized version of a local model.")
    parser.add_argument("model", type=Path, help="folder in transformers' format")
    parser.add_argument("out", type=Path, help="file (gguf-*) or folder (gptq, awq) to make")
    parser.add_argument("--to", required=True, choices=FORMATS)
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="JSONL with messages, for the calibration")
    parser.add_argument("--group-size", type=int, default=32, help="weights that share a scale (gptq, awq)")
    args = parser.parse_args()
    try:
        check(args.model, args.out, args.to)
        if args.to.startswith("gguf-"):
            whole(args.out, lambda place: convert(args.model, place, args.to.removeprefix("gguf-")))
        else:
            texts = calibration(args.prompts)
            whole(args.out, lambda place: by_gptqmodel(args.model, place, args.to, texts, args.group_size))
    except (Unusable, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{args.out}: {args.to} of {args.model}")
    return 0


def check(model: Path, out: Path, to: str) -> None:
    """Raises Unusable for what is missing, before anything heavy is imported."""
    if not (model / "config.json").is_file():
        raise Unusable(f"{model} is no model: it has no config.json; name a folder in transformers' format.")
    if out.exists():
        raise Unusable(f"{out} exists; name another place, or remove it yourself.")
    missing = [name for name in NEEDED[to.partition("-")[0]] if importlib.util.find_spec(name) is None]
    if missing:
        raise Unusable(
            f"--to {to} needs {', '.join(missing)}, which {sys.executable} cannot import; "
            f"install with: {sys.executable} -m pip install {' '.join(missing)}"
        )


def whole(out: Path, make: Callable[[Path], None]) -> None:
    """Makes ``out`` beside its place and renames it. Raises what ``make`` raises, and then leaves nothing."""
    out.parent.mkdir(parents=True, exist_ok=True)
    place = out.parent / f".{out.name}.{os.getpid()}.making"
    try:
        make(place)
        place.rename(out)
    finally:
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)


def calibration(prompts: Path) -> list[str]:
    """The texts on which the error of the quantization is made small. Raises Unusable for a file without messages."""
    try:
        lines = [json.loads(line) for line in prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
        return ["\n".join(message["content"] for message in line["messages"]) for line in lines]
    except (ValueError, KeyError, TypeError):
        raise Unusable(f"{prompts} has lines without messages; a line is {{'messages': [...]}}.") from None


def stand_in_for_torchvision() -> None:
    """GPTQModel imports torchvision for the models with pictures alone, and a torch for CPUs has none that fits. An
    empty module takes its place; transformers has looked for the real one before that."""
    if importlib.util.find_spec("torchvision") is not None:
        return
    importlib.import_module("transformers").utils.is_torchvision_available()
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        module: Any = types.ModuleType(name)
        module.InterpolationMode = types.SimpleNamespace(BICUBIC="bicubic", BILINEAR="bilinear")
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules[name] = module


def by_gptqmodel(model: Path, out: Path, to: str, texts: list[str], group_size: int) -> None:
    """4 bits by GPTQModel. Raises Unusable with its own words where it cannot do this model on this machine."""
    stand_in_for_torchvision()
    library: Any = importlib.import_module("gptqmodel")
    words: dict[str, Any] = {"bits": 4, "group_size": group_size}
    if to == "awq":
        words["quant_method"] = words["format"] = "awq"
        kind = getattr(library.quantization, "AWQConfig", None)
        config = kind(bits=4, group_size=group_size) if kind else library.QuantizeConfig(**words)
    else:
        config = library.QuantizeConfig(**words)
    try:
        loaded = library.GPTQModel.load(str(model), config)
        loaded.quantize(texts, batch_size=1)
        loaded.save(str(out))
    except (ValueError, TypeError, RuntimeError, NotImplementedError, AttributeError) as error:
        raise Unusable(f"GPTQModel cannot make {to} of {model} here: {type(error).__name__}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
