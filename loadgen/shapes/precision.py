"""How many bytes a weight takes, by the name that users give a precision.

Quantized checkpoints leave embeddings, the output matrix, norms, biases and routers in 16 bits (AWQ, GPTQ and the fp8
releases of DeepSeek and Qwen do); MXFP4 as gpt-oss ships it quantizes the experts alone. The bytes of scales are
counted, because at 4 bits they are 4 % of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from loadgen.errors import UsageError

PLAIN_BYTES = 2
"""Bytes of a value that is not quantized: bf16 or fp16."""


class Precision(msgspec.Struct, frozen=True, kw_only=True):
    """Bits of a quantized weight; ``group`` weights share a scale and a zero point (None: too many for them to count).

    ``experts_only`` leaves all but the routed experts in 16 bits. ``fp8_compute`` multiplies in fp8 where a GPU can;
    the others unpack their weights and multiply in bf16.
    """

    name: str
    weight_bits: int
    group: int | None = None
    scale_bits: int = 0
    zero_bits: int = 0
    experts_only: bool = False
    fp8_compute: bool = False

    @property
    def weight_bytes(self) -> float:
        """Bytes of one quantized weight with its share of scales and zero points."""
        shared = (self.scale_bits + self.zero_bits) / self.group if self.group else 0.0
        return (self.weight_bits + shared) / 8


PRECISIONS: Mapping[str, Precision] = MappingProxyType(
    {
        one.name: one
        for one in (
            Precision(name="bf16", weight_bits=16),
            Precision(name="fp8", weight_bits=8, fp8_compute=True),  # a scale per tensor or block of 128 x 128
            Precision(name="int8", weight_bits=8, group=128, scale_bits=16, zero_bits=8),  # GPTQ
            Precision(name="int4", weight_bits=4, group=128, scale_bits=16, zero_bits=4),  # GPTQ, AWQ
            Precision(name="mxfp4", weight_bits=4, group=32, scale_bits=8, experts_only=True),
        )
    }
)


def precision(name: str) -> Precision:
    """The precision of this name. Raises UsageError with the list."""
    if name not in PRECISIONS:
        raise UsageError(f"dtype {name!r}: there are {', '.join(PRECISIONS)}.")
    return PRECISIONS[name]


def stored_precision(quantization: Mapping[str, Any] | None, place: str) -> Precision:
    """The precision that the ``quantization_config`` of a config.json states; bf16 where there is none.

    Raises UsageError for one that is not known here.
    """
    if not quantization:
        return PRECISIONS["bf16"]
    method, bits = quantization.get("quant_method"), quantization.get("bits", 4)
    if method in ("fp8", "mxfp4"):
        return PRECISIONS[method]
    if method in ("gptq", "awq") and bits in (4, 8):
        group = quantization.get("group_size")
        grouped = group if isinstance(group, int) and group > 0 else None  # -1 is one group a column
        return msgspec.structs.replace(PRECISIONS[f"int{bits}"], group=grouped)
    raise UsageError(
        f"{place}: quantization_config.quant_method: {method!r} is not known here; say what comes nearest to it with "
        f"--dtype ({', '.join(PRECISIONS)})."
    )
