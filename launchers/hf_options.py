"""The server's command line, and what of it can be refused before anything heavy is imported.

Out: an `argparse.Namespace`. `check_options` holds every rule that needs neither torch nor the model: what two options
exclude, what a package is missing for. The sentences say what to take instead.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from hf_quantize import PACKAGES as QUANTIZERS

WAYS = {
    "continuous": "continuous, one contiguous KV row per sequence (hf_batching)",
    "static": "static, a batch runs until its last reply ends (hf_batching)",
    "none": "none, one request at a time, its KV cache as long as its text (hf_batching, hf_grown)",
    "paged": "continuous, transformers' ContinuousBatchingManager with a paged KV cache",
}
EXPERTS = ("auto", "eager", "grouped_mm", "batched_mm")
PACKAGES = {
    "torch": "torch",
    "transformers": "transformers",
    "accelerate": "accelerate",
    "starlette": "starlette",
    "uvicorn": "uvicorn",
    "prometheus_client": "prometheus-client",
}


class Unusable(Exception):
    """Options or a model that this server cannot run. The message is a sentence; the exit code is 2."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Serve a transformers model with OpenAI's HTTP protocol.")
    add = parser.add_argument
    add("--model", required=True, help="folder or hub id")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8000)
    add("--served-name", help="name in requests (default: --model as given)")
    add("--trust-remote-code", action="store_true")
    add("--seed", type=int, default=0, help="seed of dummy weights and of sampling without a seed of its own")
    add("--threads", type=positive, help="CPU threads of torch, of each rank (default: its own choice)")
    add("--step-delay-ms", type=float, default=0.0, help="no decode step is shorter (for tests)")
    _add_model(parser)
    _add_batching(parser)
    return parser.parse_args()


def _add_model(parser: argparse.ArgumentParser) -> None:
    """Options that say how the model is loaded and run."""
    add = parser.add_argument
    add("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    add("--device", default="auto", help="auto, cpu, cuda or cuda:i")
    add("--load-format", default="auto", choices=["auto", "dummy"], help="dummy: random weights from the config")
    add(
        "--quantization",
        choices=["none", *QUANTIZERS],
        help="bnb-*, fp8 and torchao-* quantize while loading; gptq and awq are checkpoints that are quantized already",
    )
    add("--tensor-parallel", type=positive, default=1, help="ranks, one device each; transformers' own plan")
    add(
        "--sharding",
        default="none",
        choices=["none", "layers"],
        help="layers: device_map auto, a naive pipeline in which one GPU computes at a time and the others wait",
    )
    add("--attn", default="auto", help="auto, eager, sdpa, flash_attention_2, ...")
    add("--experts", default="auto", choices=EXPERTS, help="how a mixture of experts multiplies")
    add("--compile", default="none", choices=["none", "default", "reduce-overhead"], help="torch.compile of the decode")
    add(
        "--prompt-logits",
        default="last",
        choices=["last", "all"],
        help="all: logits of every prompt token, in float32 (what transformers did up to 4.44)",
    )


def _add_batching(parser: argparse.ArgumentParser) -> None:
    """Options that say how requests share the model, and how it remembers them."""
    add = parser.add_argument
    add("--batching", default="continuous", choices=list(WAYS))
    add("--max-batch-size", type=positive, default=32, help="sequences that run at once")
    add(
        "--max-model-len",
        type=positive,
        help="tokens of prompt and reply together (default: the model's, at most 4096)",
    )
    add("--max-waiting", type=positive, default=1024, help="requests that may wait for a place; more get a 503")
    add("--prefix-caching", action="store_true", help="share equal beginnings of prompts (batching paged)")
    add("--no-kv-cache", action="store_true", help="compute the whole text anew for every token")
    add(
        "--static-cache",
        action="store_true",
        help="decode steps of few fixed shapes: rows filled up to a power of two, attention over --max-model-len",
    )


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def check_options(args: argparse.Namespace) -> None:
    """Raises Unusable for what this server cannot do or this environment does not have. Imports nothing."""
    if is_path(args.model) and not Path(args.model).expanduser().is_dir():
        raise Unusable(
            f"The model folder {args.model} does not exist; make one with make_model.py, or name a model of the hub "
            "as owner/name."
        )
    _check_together(args)
    needed = {**PACKAGES, **QUANTIZERS.get(args.quantization or "none", {})}
    missing = [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
    if not missing:
        return
    if set(missing) <= set(PACKAGES.values()):
        raise Unusable(
            f"{sys.executable} cannot import {', '.join(missing)}; install loadgen's extra hf into that environment, "
            f"or: {sys.executable} -m pip install {' '.join(missing)}"
        )
    raise Unusable(
        f"--quantization {args.quantization} needs {', '.join(missing)}, which {sys.executable} cannot import; install "
        f"with: {sys.executable} -m pip install {' '.join(missing)}"
    )


def _check_together(args: argparse.Namespace) -> None:
    """Raises Unusable for options that exclude one another."""
    paged = args.batching == "paged"
    if args.prefix_caching and not paged:
        raise Unusable(
            f"--prefix-caching: --batching {args.batching} computes every prompt anew; take --batching paged with it."
        )
    for name, given in (
        ("--no-kv-cache", args.no_kv_cache),
        ("--static-cache", args.static_cache),
        ("--prompt-logits all", args.prompt_logits == "all"),
        ("--tensor-parallel", args.tensor_parallel > 1),
    ):
        if paged and given:
            raise Unusable(
                f"{name}: --batching paged is transformers' own loop and has no such thing; take continuous."
            )
    if args.no_kv_cache and args.static_cache:
        raise Unusable("--no-kv-cache and --static-cache exclude one another; leave one of them out.")
    if args.compile != "none" and not args.static_cache:
        raise Unusable(
            f"--compile {args.compile} needs --static-cache: steps whose shapes change with every token would be "
            "compiled over and over."
        )
    if args.tensor_parallel > 1 and args.sharding != "none":
        raise Unusable("--tensor-parallel and --sharding layers are two ways to spread a model; leave one of them out.")
    if args.tensor_parallel > 1 and args.quantization not in (None, "none"):
        raise Unusable(
            f"--tensor-parallel {args.tensor_parallel} with --quantization {args.quantization}: transformers' plan "
            "splits plain weights only; leave one of them out, or take --sharding layers."
        )
    if args.tensor_parallel > 1 and args.device.startswith("cuda:"):
        raise Unusable(
            f"--device {args.device}: with --tensor-parallel rank i runs on cuda:i; say --device cuda and choose GPUs "
            "with CUDA_VISIBLE_DEVICES."
        )


def kv_cache(args: argparse.Namespace) -> str:
    """How keys and values are kept: none, static, paged, slots (rows of full length), grown (as long as the text)."""
    if args.no_kv_cache:
        return "none"
    if args.static_cache:
        return "static"
    return {"paged": "paged", "none": "grown"}.get(args.batching, "slots")


def is_path(model: str) -> bool:
    """True for a folder, False for a hub id (one slash at most, and no folder of that name)."""
    return model.startswith(("/", ".", "~")) or model.count("/") > 1 or Path(model).is_dir()
