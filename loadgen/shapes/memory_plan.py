"""How much memory a model takes while it serves, from sizes alone; nothing is started.

In: a `ModelShape`, lengths, a batch, how the work is split. Out: a `Memory` in bytes, part by part; how many tokens and
requests fit; the fewest GPUs. ``tests/test_memory_plan.py`` holds it against published figures, row by row.

The peak is the larger of two moments (B requests, n tokens in, m out; V the vocabulary, h the hidden size, d the size
of a head)::

    prefill   weights + KV of B n tokens + the larger of  activations   step · (4 h + 3 width + 2 d) · 2 bytes
                                                          logits        tokens with logits · V · 6 bytes + hidden states
    decode    weights + KV of B (n + m) tokens + one token of each request

Logits are 6 bytes because they are made in 16 bits and raised to float32 while both are held. ``prompt_logits: all`` is
what transformers 4.38 did: logits for every token of the prompt, of which only the last is used. Today's engines
keep the last (``last``), and cut long prompts into steps of ``step_tokens``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from loadgen.errors import UsageError
from loadgen.shapes.model_shape import ModelShape
from loadgen.shapes.precision import PLAIN_BYTES, PRECISIONS, Precision, precision

CONTEXT_BYTES = 0.5e9
"""What CUDA and the kernels take of every GPU before the first tensor; torch's own figures do not count it."""

STEP_TOKENS = 8192
"""Prompt tokens that an engine with chunked prefill works on at once, where nothing else is said."""

_MOST_REQUESTS = 1 << 30
_WIDEST_GROUP = 64

CARDS: Mapping[str, int] = MappingProxyType(
    {
        **dict.fromkeys(("h100", "h800", "a100", "a800"), 80),
        **dict.fromkeys(("4090", "3090", "a10", "a30"), 24),
        **{"h200": 141, "a100-40gb": 40, "v100": 32, "a6000": 48, "l40s": 48, "4070": 12, "3070": 8, "mi300x": 192},
    }
)
"""Memory of common GPUs (GB), as vendors print it."""

QUANTIZED: Mapping[str, str] = MappingProxyType(
    {"gptq-int8": "int8", "gptq-int4": "int4", "awq": "int4", "fp8": "fp8", "mxfp4": "mxfp4"}
)
"""Published names of quantizations, and the precision that each stores its linear layers in."""


def stored_as(dtype: str | None, quantization: str | None) -> Precision | None:
    """The precision that a user names in one of two ways, None for neither. Raises UsageError."""
    if quantization is None:
        return None if dtype is None else precision(dtype)
    if quantization.lower() not in QUANTIZED:
        raise UsageError(f"quantization {quantization!r}: there are {', '.join(QUANTIZED)}.")
    found = PRECISIONS[QUANTIZED[quantization.lower()]]
    if dtype is not None and precision(dtype) not in (found, PRECISIONS["bf16"]):
        raise UsageError(f"dtype {dtype!r} and quantization {quantization!r} store weights differently; name one.")
    return found


def gpu_bytes(text: str) -> float:
    """The memory of a GPU: ``24GB`` (10**9 bytes each), ``80GiB`` (2**30), a number of GB, or a name of `CARDS`.

    Raises UsageError with the list.
    """
    key = re.sub(r"^((nvidia|geforce|rtx)-?)+", "", re.sub(r"[\s_]", "", text.lower()))
    if key in CARDS:
        return CARDS[key] * 1e9
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)(gib|gb|g)?", key)
    if found is None or float(found[1]) == 0:
        raise UsageError(f"gpu {text!r}: write its memory, such as 24GB, or one of {', '.join(CARDS)}.")
    return float(found[1]) * (1 << 30 if found[2] == "gib" else 1e9)


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes at the peak, summed over GPUs. ``activations`` or ``logits`` is 0, whichever was the smaller.

    ``tables`` are rotary tables that old transformers kept in every layer; ``copies`` what crossed to the first GPU.
    """

    weights: float
    tables: float
    kv: float
    activations: float
    logits: float
    copies: float

    @property
    def total(self) -> float:
        """All of it: what torch counts as its peak allocated, summed over GPUs."""
        return self.weights + self.tables + self.kv + self.activations + self.logits + self.copies


class MemoryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A model (in the precision of its shape) that serves ``batch`` requests of these lengths at once.

    ``split``: ``tensor`` cuts every layer over the GPUs, so that KV heads are held twice where there are fewer of them
    than GPUs; ``layers`` puts whole layers on each (device_map, pipelines). ``step_tokens`` None takes the prompts of a
    batch whole. ``rotary_positions``: length of the tables of sines and cosines that every layer keeps, 0 for none.
    ``wide`` is True for values of 4 bytes (float32).
    """

    shape: ModelShape
    input_tokens: int
    output_tokens: int
    batch: int = 1
    gpus: int = 1
    split: Literal["tensor", "layers"] = "tensor"
    prompt_logits: Literal["all", "last"] = "last"
    step_tokens: int | None = STEP_TOKENS
    rotary_positions: int = 0
    wide: bool = False

    @property
    def value_bytes(self) -> int:
        """Bytes of a value that is not quantized."""
        return 2 * PLAIN_BYTES if self.wide else PLAIN_BYTES

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes of KV cache per token, summed over GPUs."""
        held = max(1.0, self.gpus / self.shape.attention.kv_heads) if self.split == "tensor" else 1.0
        return self.shape.kv_bytes_per_token(self.value_bytes) * held

    def at_peak(self) -> Memory:
        """The parts at the moment of the peak."""
        return max(self._prefill(), self._decode(), key=lambda one: one.total)

    def fits(self, memory_bytes: float) -> bool:
        """Whether it fits on its GPUs of so many bytes each, if they share it evenly."""
        return self.at_peak().total <= self._room(memory_bytes)

    def requests(self, memory_bytes: float) -> int:
        """The most requests of these lengths at once; 0 where none fits."""
        if not msgspec.structs.replace(self, batch=1).fits(memory_bytes):
            return 0
        low, high = 1, _MOST_REQUESTS
        while high - low > 1:
            middle = (low + high) // 2
            fits = msgspec.structs.replace(self, batch=middle).fits(memory_bytes)
            low, high = (middle, high) if fits else (low, middle)
        return low

    def tokens(self, memory_bytes: float) -> int:
        """Tokens of KV cache that fit beside the weights and what a step of one request takes."""
        peak = msgspec.structs.replace(self, batch=1).at_peak()
        return max(0, math.floor((self._room(memory_bytes) - peak.total + peak.kv) / self.kv_bytes_per_token))

    def _room(self, memory_bytes: float) -> float:
        return self.gpus * (memory_bytes - CONTEXT_BYTES)

    def _prefill(self) -> Memory:
        prompt = self.batch * self.input_tokens
        whole = self.step_tokens is None or self.prompt_logits == "all"
        step = prompt if whole else min(prompt, self.step_tokens or prompt)
        memory = self._memory(prompt, step, prompt if self.prompt_logits == "all" else self.batch)
        # accelerate sends the outputs of a split model back to the GPU of its inputs: a float32 copy. That a third GPU
        # adds another is what two published rows say, and nothing else: docs/memory.md.
        crossed = self.gpus - 1 if self.split == "layers" and self.prompt_logits == "all" else 0
        return msgspec.structs.replace(memory, copies=4.0 * crossed * prompt * self.shape.vocabulary)

    def _decode(self) -> Memory:
        return self._memory(self.batch * (self.input_tokens + self.output_tokens), self.batch, self.batch)

    def _memory(self, kept: int, step: int, with_logits: int) -> Memory:
        """``kept`` tokens in the cache, ``step`` tokens worked on, ``with_logits`` of them with logits."""
        shape, value = self.shape, self.value_bytes
        head_size = shape.attention.kv_values // (2 * shape.attention.kv_heads)
        activations = float(step * (4 * shape.hidden + 3 * _width(shape) + 2 * head_size) * value)
        logits = float(with_logits * shape.vocabulary * (4 if self.wide else 6) + step * shape.hidden * value)
        return Memory(
            weights=shape.weight_bytes(shape.stored) * value / PLAIN_BYTES,
            tables=float(2 * shape.layers * self.rotary_positions * head_size * value),
            kv=kept * self.kv_bytes_per_token,
            activations=activations if activations > logits else 0.0,
            logits=0.0 if activations > logits else logits,
            copies=0.0,
        )


def group_sizes(shape: ModelShape) -> Iterator[int]:
    """Numbers of GPUs that a tensor-parallel engine takes: powers of two that divide the attention heads."""
    gpus = 1
    while gpus <= _WIDEST_GROUP and shape.attention.heads % gpus == 0:
        yield gpus
        gpus *= 2


def fewest_gpus(plan: MemoryPlan, memory_bytes: float) -> int | None:
    """The smallest tensor-parallel group that holds the plan; None where no size that divides the heads does."""
    sizes = (msgspec.structs.replace(plan, gpus=gpus, split="tensor") for gpus in group_sizes(plan.shape))
    return next((one.gpus for one in sizes if one.fits(memory_bytes)), None)


def fewest_by_layers(plan: MemoryPlan, memory_bytes: float) -> int | None:
    """The fewest GPUs that hold the plan with whole layers on each; None where a GPU a layer is not enough."""
    sizes = (msgspec.structs.replace(plan, gpus=gpus, split="layers") for gpus in range(1, plan.shape.layers + 1))
    return next((one.gpus for one in sizes if one.fits(memory_bytes)), None)


def _width(shape: ModelShape) -> int:
    """The numbers that the widest MLP of a layer holds per token; of experts, those that a token passes."""
    experts = shape.experts
    routed = (experts.linear * experts.per_token + experts.shared) // (3 * shape.hidden) if experts else 0
    return max(shape.mlp.linear // (3 * shape.hidden), routed)
