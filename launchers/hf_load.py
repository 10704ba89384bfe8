"""A model folder or hub id -> model, tokenizer, and what the server knows of them.

What `hf_options` could not refuse without torch or the model's config is refused here, with a sentence. The model is on
its device, or on its devices: whole, spread by layers (`--sharding layers`), or one rank's part of every layer
(`--tensor-parallel`, where each rank runs this file).
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hf_quantize
from hf_options import Unusable, is_path

RECORD = "loadgen_made.json"
"""Written by make_model.py; its ``weights`` say that they are random."""
LONGEST_DEFAULT = 4096
"""--max-model-len where it is not given: the model's own, but not more than this. Room is reserved at the start."""


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to run. ``weights`` is ``random`` or ``loaded``; ``quantization`` the word, or what the
    checkpoint says, None if there is none; ``layers_on`` counts the layers of each device where they are spread."""

    model: Any
    tokenizer: Any
    device: str
    length: int
    ends: frozenset[int]
    weights: str
    quantization: str | None
    layers_on: dict[str, int] | None

    @property
    def weights_bytes(self) -> int:
        """Bytes of the weights as they are held, of this rank: says whether a quantization took hold of the experts,
        which transformers keeps in one tensor that some quantizations pass over."""
        return sum(held_bytes(parameter) for parameter in self.model.parameters())

    @property
    def cuda_devices(self) -> tuple[int, ...]:
        """Indices of the GPUs that hold a part of the model."""
        found = {parameter.device for parameter in self.model.parameters()}
        return tuple(sorted(device.index or 0 for device in found if device.type == "cuda"))


def load(args: argparse.Namespace, rank: int = 0) -> Loaded:
    """Loads the model, or one rank's part of it. Raises Unusable for what transformers or the device refuse."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch

    hub: Any = importlib.import_module("transformers")  # its types are partial, and change from version to version
    hub.utils.logging.disable_progress_bar()
    cores = max(1, len(os.sched_getaffinity(0)) // args.tensor_parallel)
    torch.set_num_threads(args.threads or min(torch.get_num_threads(), cores))
    torch.manual_seed(args.seed)
    name = str(Path(args.model).expanduser()) if is_path(args.model) else args.model
    device = pick_device(args.device, rank, args.tensor_parallel)
    try:
        config = hub.AutoConfig.from_pretrained(name, trust_remote_code=args.trust_remote_code)
        tokenizer = hub.AutoTokenizer.from_pretrained(name, trust_remote_code=args.trust_remote_code)
        length = pick_length(args.max_model_len, config)
        stored = hf_quantize.stored_method(config)
        check_model(args, config, stored, device)
        model = load_model(args, name, config, device)
    except torch.OutOfMemoryError as error:
        raise Unusable(f"{args.model} does not fit into the memory of {device}: {first_line(error)}") from error
    except hf_quantize.Disagreement as error:
        raise Unusable(str(error)) from error
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        raise Unusable(f"{args.model} cannot be loaded: {first_line(error)}{hub_advice(args.model)}") from error
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        device=device,
        length=length,
        ends=ends_of(model),
        weights="random" if args.load_format == "dummy" else weights_of(name),
        quantization=args.quantization if args.quantization not in (None, "none") else stored,
        layers_on=layers_on(model) if args.sharding == "layers" else None,
    )


def check_model(args: argparse.Namespace, config: Any, stored: str | None, device: str) -> None:
    """Raises Unusable, or Disagreement, for options that this model cannot be run with."""
    hf_quantize.check(args.quantization, stored, args.model)
    if args.quantization not in (None, "none"):
        hf_quantize.check_device(args.quantization, device)
    if stored and args.load_format == "dummy":
        raise Unusable(
            f"--load-format dummy draws plain weights, and those of {args.model} are stored in {stored}; give the "
            "plain model's folder."
        )
    text = config.get_text_config()
    for name in ("num_attention_heads", "num_key_value_heads"):
        heads = getattr(text, name, None)
        if heads is not None and heads % args.tensor_parallel:
            raise Unusable(
                f"--tensor-parallel {args.tensor_parallel}: {args.model} has {heads} {name}, and each rank must get "
                "the same number of them."
            )
    if args.experts != "auto" and not (getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None)):
        raise Unusable(f"--experts {args.experts}: {args.model} is a dense model and has no experts; leave it out.")


def load_model(args: argparse.Namespace, name: str, config: Any, device: str) -> Any:
    """The model on its device or devices, in evaluation mode."""
    import torch

    hub: Any = importlib.import_module("transformers")
    # cuDNN's attention makes a plan for every new length of the KV cache: on an H200 the first decode step at each
    # length took 53 ms in place of 20, and every request whose lengths nobody had asked for before was that slow
    torch.backends.cuda.enable_cudnn_sdp(False)
    dtype = pick_dtype(args.dtype, config)
    stored = args.dtype == "auto" and args.load_format != "dummy"  # transformers then reads it off the weights
    words: dict[str, Any] = {"trust_remote_code": args.trust_remote_code, "dtype": "auto" if stored else dtype}
    if args.attn != "auto":
        words["attn_implementation"] = args.attn
    if args.experts != "auto":
        words["experts_implementation"] = args.experts
    if args.quantization not in (None, "none", *hf_quantize.MADE_BEFORE):
        words["quantization_config"] = hf_quantize.config_for(args.quantization, dtype)
    words |= placement(args, device)
    if args.load_format == "dummy":
        from hf_dummy import random_state

        kind, state = random_state(config, dtype, device, args.seed)
        del words["trust_remote_code"]  # the class is known already
        model = kind.from_pretrained(None, config=config, state_dict=state, **words)
    else:
        model = hub.AutoModelForCausalLM.from_pretrained(name, **words)
    places = {str(place) for place in (getattr(model, "hf_device_map", None) or {}).values()}
    if device != "cpu" and (elsewhere := places & {"cpu", "disk"}):
        raise Unusable(
            f"{args.model} does not fit into the GPUs: transformers put layers on {', '.join(sorted(elsewhere))}, "
            "which would be measured as if it were a GPU. Take more GPUs, or a quantization."
        )
    return model.eval().requires_grad_(False)


def placement(args: argparse.Namespace, device: str) -> dict[str, Any]:
    """Words of `from_pretrained` that say where the weights go."""
    if args.tensor_parallel > 1:
        distributed: Any = importlib.import_module("transformers.distributed").DistributedConfig
        if "tp_size" in {field.name for field in dataclasses.fields(distributed)}:
            return {"distributed_config": distributed(tp_size=args.tensor_parallel)}
        return {"tp_plan": "auto"}  # transformers before 5.1x
    if args.sharding == "layers" and device != "cpu":
        return {"device_map": "balanced"}
    return {"device_map": {"": device}}


def pick_dtype(wanted: str, config: Any) -> Any:
    """torch's type of the weights; ``auto`` is what config.json says, else float32."""
    import torch

    return (getattr(config, "dtype", None) or torch.float32) if wanted == "auto" else getattr(torch, wanted)


def pick_device(wanted: str, rank: int = 0, ranks: int = 1) -> str:
    """cpu or cuda:i. Raises Unusable for a device that is not there."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cpu" or (wanted == "auto" and not count):
        return "cpu"
    kind, _, index = ("cuda" if wanted == "auto" else wanted).partition(":")
    if kind != "cuda" or not (index or "0").isdigit():
        raise Unusable(f"--device {wanted} is not one of auto, cpu, cuda, cuda:0, cuda:1, ...")
    if max(int(index or 0), ranks - 1) >= count:
        raise Unusable(
            f"--device {wanted}{f' with --tensor-parallel {ranks}' if ranks > 1 else ''}: torch {torch.__version__} "
            f"sees {count} CUDA devices here; take {'fewer ranks or ' if ranks > 1 else ''}--device cpu."
        )
    return f"cuda:{rank if ranks > 1 else int(index or 0)}"


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


def held_bytes(tensor: Any) -> int:
    """Bytes of a tensor, or of the tensors that it is made of (a quantized one, one rank's part)."""
    if hasattr(tensor, "__tensor_flatten__"):
        parts = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
        return sum(held_bytes(part) for part in parts if hasattr(part, "numel"))
    return int(tensor.numel() * tensor.element_size())


def layers_on(model: Any) -> dict[str, int]:
    """How many decoder layers each device holds."""
    layers = next(module for module in model.modules() if type(module).__name__ == "ModuleList")
    return dict(Counter(str(next(layer.parameters()).device) for layer in layers))


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
