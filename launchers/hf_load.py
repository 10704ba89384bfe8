"""A model folder or hub id -> model, tokenizer, and what the server knows of them.

Everything that can be refused is refused here with a sentence, the cheap reasons before torch is imported.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = {
    "torch": "torch",
    "transformers": "transformers",
    "starlette": "starlette",
    "uvicorn": "uvicorn",
    "prometheus_client": "prometheus-client",
}
RECORD = "loadgen_made.json"
"""Written by make_model.py; its ``weights`` say that they are random."""
LONGEST_DEFAULT = 4096
"""--max-model-len where it is not given: the model's own, but not more than this. Room is reserved at the start."""


class Unusable(Exception):
    """Options or a model that this server cannot run. The message is a sentence; the exit code is 2."""


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to run. ``weights`` is ``random`` or ``loaded``; ``quantization`` None if there is none."""

    model: Any
    tokenizer: Any
    device: str
    length: int
    ends: frozenset[int]
    weights: str
    quantization: str | None


def check_options(args: argparse.Namespace) -> None:
    """Raises Unusable for what this server cannot do or this environment does not have. Imports nothing."""
    if args.quantization not in (None, "none"):
        raise Unusable(
            f"--quantization {args.quantization}: this server does not quantize; it runs weights as they are stored, "
            "or in float32, bfloat16 or float16. Leave the option out, give it a checkpoint that is quantized "
            "already, or use an engine that quantizes, such as vllm."
        )
    if args.tensor_parallel != 1:
        raise Unusable(
            f"--tensor-parallel {args.tensor_parallel}: this server runs in one process, on one device; leave the "
            "option out, or use an engine that splits a model, such as vllm."
        )
    if args.sharding != "none":
        raise Unusable(f"--sharding {args.sharding}: this server does not spread layers; leave the option out.")
    if args.prefix_caching and args.batching != "paged":
        raise Unusable(
            f"--prefix-caching: --batching {args.batching} computes every prompt anew; take --batching paged with it."
        )
    if is_path(args.model) and not Path(args.model).expanduser().is_dir():
        raise Unusable(
            f"The model folder {args.model} does not exist; make one with make_model.py, or name a model of the hub "
            "as owner/name."
        )
    missing = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise Unusable(
            f"{sys.executable} cannot import {', '.join(missing)}; install loadgen's extra hf into that environment, "
            f"or: {sys.executable} -m pip install {' '.join(missing)}"
        )


def is_path(model: str) -> bool:
    """True for a folder, False for a hub id (one slash at most, and no folder of that name)."""
    return model.startswith(("/", ".", "~")) or model.count("/") > 1 or Path(model).is_dir()


def load(args: argparse.Namespace) -> Loaded:
    """Loads the model. Raises Unusable for what transformers or the device refuse."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch

    hub: Any = importlib.import_module("transformers")  # its types are partial, and change from version to version
    hub.utils.logging.disable_progress_bar()
    torch.set_num_threads(args.threads or min(torch.get_num_threads(), len(os.sched_getaffinity(0))))
    torch.manual_seed(args.seed)
    name = str(Path(args.model).expanduser()) if is_path(args.model) else args.model
    device = pick_device(args.device)
    try:
        config = hub.AutoConfig.from_pretrained(name, trust_remote_code=args.trust_remote_code)
        tokenizer = hub.AutoTokenizer.from_pretrained(name, trust_remote_code=args.trust_remote_code)
        length = pick_length(args.max_model_len, config)
        model = load_model(args, name, config, device)
    except torch.OutOfMemoryError as error:
        raise Unusable(
            f"{args.model} does not fit into the memory of {device}: {str(error).splitlines()[0]}"
        ) from error
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise Unusable(f"{args.model} cannot be loaded: {first_line(error)}{hub_advice(args.model)}") from error
    stored = getattr(config, "quantization_config", None)
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        device=device,
        length=length,
        ends=ends_of(model),
        weights="random" if args.load_format == "dummy" else weights_of(name),
        quantization=str(stored.get("quant_method")) if isinstance(stored, dict) else None,
    )


def load_model(args: argparse.Namespace, name: str, config: Any, device: str) -> Any:
    """The model on its device, in evaluation mode."""
    import torch

    factory: Any = importlib.import_module("transformers").AutoModelForCausalLM
    kwargs: dict[str, Any] = {"trust_remote_code": args.trust_remote_code}
    if args.attn != "auto":
        kwargs["attn_implementation"] = args.attn
    if args.load_format == "dummy":
        dtype = (
            (getattr(config, "dtype", None) or torch.float32) if args.dtype == "auto" else getattr(torch, args.dtype)
        )
        with torch.device(device):
            model = factory.from_config(config, dtype=dtype, **kwargs)
    else:
        dtype = "auto" if args.dtype == "auto" else getattr(torch, args.dtype)
        model = factory.from_pretrained(name, dtype=dtype, **kwargs)
    return model.to(device).eval().requires_grad_(False)


def pick_device(wanted: str) -> str:
    """cpu or cuda:i. Raises Unusable for a device that is not there."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return "cuda:0" if count else "cpu"
    if wanted == "cpu":
        return wanted
    kind, _, index = wanted.partition(":")
    if kind != "cuda" or not (index or "0").isdigit():
        raise Unusable(f"--device {wanted} is not one of auto, cpu, cuda, cuda:0, cuda:1, ...")
    if int(index or 0) >= count:
        raise Unusable(
            f"--device {wanted}: torch {torch.__version__} sees {count} CUDA devices here; take --device cpu."
        )
    return f"cuda:{index or 0}"


def pick_length(wanted: int | None, config: Any) -> int:
    """The most tokens of prompt and reply together. Raises Unusable where more is wanted than the model has."""
    own = getattr(config.get_text_config(), "max_position_embeddings", None)
    if wanted is None:
        return min(own or LONGEST_DEFAULT, LONGEST_DEFAULT)
    if own is not None and wanted > own:
        raise Unusable(
            f"--max-model-len {wanted}: this model has {own} positions (max_position_embeddings); take at most that."
        )
    return wanted


def ends_of(model: Any) -> frozenset[int]:
    """Token ids that end a text: the generation config's, else the config's."""
    end = getattr(model.generation_config, "eos_token_id", None)
    if end is None:
        end = getattr(model.config, "eos_token_id", None)
    if end is None:
        return frozenset()
    return frozenset([end] if isinstance(end, int) else end)


def weights_of(folder: str) -> str:
    """``random`` where make_model.py made the folder, else ``loaded``."""
    try:
        record = json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))
        return str(record["weights"])
    except (OSError, ValueError, KeyError):
        return "loaded"


def first_line(error: Exception) -> str:
    """What an exception says first, with its kind where that says little."""
    lines = str(error).strip().splitlines()
    if not lines or isinstance(error, KeyError):
        return f"{type(error).__name__} {error}".strip()
    return lines[0]


def hub_advice(model: str) -> str:
    """How to get a model of the hub."""
    return "" if is_path(model) else f" Is it in the local cache? Fetch it with: hf download {model}"
