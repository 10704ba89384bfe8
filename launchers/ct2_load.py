"""A model for CTranslate2: converted from transformers' format where it is not converted yet, then loaded.

In: a folder or hub id in transformers' format, or a folder that holds a converted model (model.bin) with its tokenizer.
Out: a `Model` and its tokenizer. The library reads a converted model whole into memory, so what was converted for this
start alone is removed again before the server is ready. To convert once for many starts:

    python ct2_load.py MODEL FOLDER [--compute-type int8]
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from ct2_engine import Model
from hf_options import Unusable

TYPES = ("auto", "int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16", "float32")
LONGEST_DEFAULT = 4096
FACTS = "loadgen_model.json"
"""Beside a converted model: what of its config.json is still needed, and where it came from."""


def load(model: str, *, device: str, compute_type: str, threads: int, length: int | None) -> tuple[Model, Any]:
    """The model and its tokenizer. Raises Unusable for what CTranslate2 cannot convert, load or do on this device."""
    check_type(device, compute_type)
    if (Path(model) / "model.bin").is_file():
        return _load(Path(model), device=device, compute_type=compute_type, threads=threads, length=length)
    with tempfile.TemporaryDirectory(prefix="loadgen-ct2-") as folder:
        converted = Path(folder) / "model"
        convert(model, converted, compute_type)
        return _load(converted, device=device, compute_type=compute_type, threads=threads, length=length)


def convert(model: str, out: Path, compute_type: str = "auto") -> None:
    """Writes the converted model, its tokenizer and `FACTS` into ``out``; weights are stored in ``compute_type``, by
    default in their own. Raises Unusable for an architecture that CTranslate2 does not have."""
    hub: Any = importlib.import_module("transformers")
    hub.utils.logging.disable_progress_bar()
    converters: Any = importlib.import_module("ctranslate2.converters")
    stored = None if compute_type == "auto" else compute_type
    try:
        config = hub.AutoConfig.from_pretrained(model)
        converters.TransformersConverter(model, low_cpu_mem_usage=True).convert(str(out), quantization=stored)
        tokenizer = hub.AutoTokenizer.from_pretrained(model)
        ends = hub.GenerationConfig.from_pretrained(model).eos_token_id
    except (OSError, ValueError) as error:
        said = str(error).split(" (supported")[0].strip().splitlines()[0]
        raise Unusable(f"CTranslate2 cannot serve {model}: {said}. {advice(str(error))}") from None
    tokenizer.save_pretrained(out)
    text = config.get_text_config()
    facts = {
        "ends": ends if isinstance(ends, list) else [] if ends is None else [ends],
        "positions": getattr(text, "max_position_embeddings", None),
        "architecture": (config.architectures or [type(config).__name__])[0],
        "from": model,
    }
    (out / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def advice(error: str) -> str:
    """What to do about a model that cannot be converted."""
    if "No conversion is registered" in error:
        return "It knows dense architectures (Llama, Qwen2, Qwen3, Mistral ...) and no mixture of experts of this kind."
    return "Name a folder with config.json, weights and tokenizer, or an id that the local cache has."


def check_type(device: str, compute_type: str) -> None:
    """Raises Unusable for a type that this build or device does not have."""
    library: Any = importlib.import_module("ctranslate2")
    place = device if device != "auto" else "cuda" if library.get_cuda_device_count() else "cpu"
    try:
        known = library.get_supported_compute_types(place)
    except (RuntimeError, ValueError) as error:
        raise Unusable(f"--device {device}: {error}; take --device cpu.") from None
    if compute_type not in ("auto", *known):
        raise Unusable(
            f"--compute-type {compute_type}: CTranslate2 {library.__version__} has {', '.join(sorted(known))} on this "
            f"{place}, and would take another in silence; choose one of these."
        )


def _load(folder: Path, *, device: str, compute_type: str, threads: int, length: int | None) -> tuple[Model, Any]:
    library: Any = importlib.import_module("ctranslate2")
    hub: Any = importlib.import_module("transformers")
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        vocabulary = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        tokenizer = hub.AutoTokenizer.from_pretrained(folder)
        generator = library.Generator(str(folder), device=device, compute_type=compute_type, intra_threads=threads)
    except (OSError, ValueError, RuntimeError) as error:
        raise Unusable(
            f"{folder} is no model that ct2_load.py converted: {str(error).splitlines()[0]}. Convert it with: "
            f"{sys.executable} {__file__} MODEL {folder}"
        ) from None
    model = Model(
        generator=generator,
        vocabulary=vocabulary,
        ends=tuple(facts["ends"]),
        length=pick_length(length, facts["positions"]),
    )
    return model, tokenizer


def pick_length(wanted: int | None, own: int | None) -> int:
    """The most tokens of prompt and reply. Raises Unusable where more is wanted than the model has positions."""
    if wanted is None:
        return min(own or LONGEST_DEFAULT, LONGEST_DEFAULT)
    if own is not None and wanted > own:
        raise Unusable(f"--max-model-len {wanted}: this model has {own} positions; take at most that.")
    return wanted


def main() -> int:
    """Converts once for many starts. 0 converted, 2 with a sentence where it cannot be."""
    parser = argparse.ArgumentParser(description="Convert a transformers model to CTranslate2's format.")
    parser.add_argument("model", help="folder or hub id")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--compute-type", default="auto", choices=TYPES, help="how the weights are stored")
    args = parser.parse_args()
    try:
        convert(args.model, args.out, args.compute_type)
    except Unusable as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{args.out}: converted from {args.model}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
