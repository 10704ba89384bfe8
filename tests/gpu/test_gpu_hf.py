"""The Hugging Face server on real GPUs: every way of loading and running it, at the shape of a published model.

    LOADGEN_GPU_MODELS=DIR python3 -m pytest -m gpu -s tests/gpu/test_gpu_hf.py [-k "bf16 or bnb"]

DIR holds a folder per shape (qwen2-7b, qwen2-57b-a14b) with config.json and a tokenizer; weights are drawn on the
device. Each variant is started through the recipe, asked one request and then eight at once for exactly `TOKENS`
tokens, and stopped with the proof that its memory is back. What was seen goes out as a JSON line, to the terminal and
to the file that LOADGEN_GPU_OUT names. The two rates are tokens over wall time, prompts included: they show that a
variant works and about how fast, and are no measurement.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadgen.launch import LaunchSpec, Server, launchers_folder, load_recipe, render, start_ready

pytestmark = pytest.mark.gpu
TOKENS = 128
AT_ONCE = 8
DENSE, MOE = "qwen2-7b", "qwen2-57b-a14b"


@dataclass(frozen=True)
class Variant:
    """A way to run a shape; ``gpus`` and ``package`` are what it needs."""

    model: str = DENSE
    options: dict[str, Any] = field(default_factory=dict)
    gpus: int = 1
    package: str | None = None


VARIANTS = {
    "bf16": Variant(),
    "eager-attention": Variant(options={"attention": "eager"}),
    "static-batches": Variant(options={"batching": "static"}),
    "one-at-a-time": Variant(options={"batching": "none"}),
    "paged": Variant(options={"batching": "paged"}),
    "no-kv-cache": Variant(options={"no_kv_cache": True}),
    "all-prompt-logits": Variant(options={"prompt_logits": "all"}),
    "static-cache": Variant(options={"static_cache": True}),
    "compiled": Variant(options={"static_cache": True, "compile": "default"}),
    "compiled-graphs": Variant(options={"static_cache": True, "compile": "reduce-overhead"}),
    "flash-attention": Variant(options={"attention": "flash_attention_2"}, package="flash_attn"),
    "bnb-8bit": Variant(options={"quantization": "bnb-8bit"}, package="bitsandbytes"),
    "bnb-4bit": Variant(options={"quantization": "bnb-4bit"}, package="bitsandbytes"),
    "bnb-4bit-fp4": Variant(options={"quantization": "bnb-4bit-fp4"}, package="bitsandbytes"),
    "torchao-int8": Variant(options={"quantization": "torchao-int8"}, package="torchao"),
    "torchao-int8-dynamic": Variant(options={"quantization": "torchao-int8-dynamic"}, package="torchao"),
    "torchao-int4": Variant(options={"quantization": "torchao-int4"}, package="torchao"),
    "torchao-fp8": Variant(options={"quantization": "torchao-fp8"}, package="torchao"),
    "fp8": Variant(options={"quantization": "fp8"}, package="kernels"),
    "moe": Variant(MOE),
    "moe-eager-experts": Variant(MOE, {"experts": "eager"}),
    "moe-batched-experts": Variant(MOE, {"experts": "batched_mm"}),
    "tp2": Variant(options={"tensor_parallel": 2}, gpus=2),
    "moe-tp2": Variant(MOE, {"tensor_parallel": 2}, gpus=2),
    "layers2": Variant(options={"sharding": "layers"}, gpus=2),
}


@pytest.fixture(scope="module")
def models() -> Path:
    """The folder of shapes; skips where there is none."""
    folder = os.environ.get("LOADGEN_GPU_MODELS")
    if not folder:
        pytest.skip("LOADGEN_GPU_MODELS names no folder of model shapes")
    return Path(folder).resolve()


@pytest.fixture(scope="module")
def gpus() -> int:
    """GPUs of this machine, asked in a process of its own: this one must not hold memory on them."""
    code = "import torch; print(torch.cuda.device_count())"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@contextmanager
def served(models: Path, folder: Path, variant: Variant) -> Iterator[Server]:
    """A server of a variant; afterwards it is gone and its memory is back."""
    options = {"load_format": "dummy", "max_model_len": 2048, "max_batch_size": 16, **variant.options}
    spec = LaunchSpec(
        name="gpu",
        engine="hf",
        model=str(models / variant.model),
        options=options,
        python=sys.executable,
        devices=tuple(range(variant.gpus)),
    )
    recipe = load_recipe("hf", folder)
    make = partial(render, recipe, spec, run_id="gpu", launchers=launchers_folder(), folder=folder)
    server = start_ready(lambda port: make(port=port), folder)
    try:
        yield server
    finally:
        proof = server.stop()
    assert proof.ok, proof.problems()


def ask(client: httpx.Client, name: str, prompt: list[int], tokens: int = TOKENS) -> httpx.Response:
    body = {"model": name, "prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
    return client.post("/v1/completions", json=body)


def rate(client: httpx.Client, name: str, at_once: int) -> float:
    """Tokens a second of so many requests together; each reply is checked to be whole."""
    start = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        prompts = [[100 + number] * 100 for number in range(at_once)]
        replies = list(pool.map(lambda prompt: ask(client, name, prompt), prompts))
    took = time.perf_counter() - start
    for reply in replies:
        assert reply.status_code == 200, reply.text
        assert reply.json()["usage"]["completion_tokens"] == TOKENS
    return at_once * TOKENS / took


def memory(client: httpx.Client) -> dict[str, float]:
    lines = [line.split() for line in client.get("/metrics").text.splitlines() if line.startswith("hf:memory_")]
    return {name.removeprefix("hf:"): float(value) for name, value in lines}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_serves_and_gives_its_memory_back(name: str, models: Path, gpus: int, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    if variant.gpus > gpus:
        pytest.skip(f"{name} needs {variant.gpus} GPUs, and this machine has {gpus}")
    if variant.package and importlib.util.find_spec(variant.package) is None:
        pytest.skip(f"{name} needs {variant.package}, which is not importable here")
    with served(models, tmp_path, variant) as server:
        served_name = server.command.served_name
        with httpx.Client(base_url=f"http://127.0.0.1:{server.command.port}", timeout=300) as client:
            assert client.post("/reset_peak_memory").status_code == 200
            one, many = rate(client, served_name, 1), rate(client, served_name, AT_ONCE)
            held = memory(client)
            about = client.get("/version").json()
    assert held["memory_peak_bytes"] > about["weights_bytes"] * 0.5
    assert held["memory_reserved_bytes"] >= held["memory_peak_bytes"]
    facts = ("version", "quantization", "weights_bytes", "layers_on", "load_s", "warmed_up_s", "warmed_up")
    report(
        {"variant": name, "model": variant.model, **{key: about[key] for key in facts}}
        | held
        | {
            "startup_s": server.describe()["startup_s"],
            f"output_tok_s_{1}": round(one, 1),
            f"output_tok_s_{AT_ONCE}": round(many, 1),
        }
    )


def test_a_prompt_that_does_not_fit_is_a_503_and_the_server_lives_on(models: Path, gpus: int, tmp_path: Path) -> None:
    if not gpus:
        pytest.skip("this machine has no GPU")
    # eager attention holds the scores of all pairs of tokens: 28 heads x 32000 x 32000, in bf16 and again in float32
    options = {"attention": "eager", "max_model_len": 32000, "max_batch_size": 1}
    with served(models, tmp_path, Variant(options=options)) as server:
        name = server.command.served_name
        with httpx.Client(base_url=f"http://127.0.0.1:{server.command.port}", timeout=300) as client:
            refused = ask(client, name, [100] * 31900, tokens=2)
            assert refused.status_code == 503, refused.text
            assert "Out of memory" in refused.json()["error"]["message"]
            assert ask(client, name, [100] * 100).status_code == 200
            report({"variant": "out-of-memory", "said": refused.json()["error"]["message"]})


def report(line: dict[str, Any]) -> None:
    text = json.dumps(line)
    print("\n" + text, flush=True)
    if out := os.environ.get("LOADGEN_GPU_OUT"):
        with Path(out).open("a") as file:
            file.write(text + "\n")
