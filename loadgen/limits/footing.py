"""A target as arithmetic sees it: the sizes of its model, the peaks of its GPUs, how many it runs on.

In: what a run kept of its targets (`Serving`), its machine, what its servers said. Out: a `Footing`, in which whatever
is not known is None with the reason in words. Floors, normalised rates and the words on mixtures all stand on it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from loadgen.errors import UsageError
from loadgen.limits.served import Served, Serving
from loadgen.shapes.model_config import shape_of
from loadgen.shapes.model_shape import ModelShape
from loadgen.shapes.precision import PRECISIONS, Precision
from loadgen.shapes.roofline import Gpu, gpu

MOST = 10**12
"""The largest whole number in a config that is believed; some write the lack of a limit as a large one."""

MOST_LAYERS = 10_000

_NVML: Mapping[str, str] = MappingProxyType(
    {
        "NVIDIA H200": "h200",
        "NVIDIA H100 80GB HBM3": "h100",
        "NVIDIA A100-SXM4-80GB": "a100",
        "NVIDIA GeForce RTX 4090": "4090",
        "NVIDIA L40S": "l40s",
    }
)
"""GPUs by the whole name that NVML gives them: another board of the same family (PCIe, NVL, MIG) has other peaks."""

_QUANTIZED: Mapping[str, str] = MappingProxyType(
    {
        "fp8": "fp8",
        "fp8_per_block": "fp8",
        "torchao-fp8": "fp8",
        "int8_weights": "int8",
        "bnb-8bit": "int8",
        "torchao-int8": "int8",
        "torchao-int8-dynamic": "int8",
        "bnb-4bit": "int4",
        "bnb-4bit-fp4": "int4",
        "torchao-int4": "int4",
        "awq": "int4",
        "awq_marlin": "int4",
        "gptq": "int4",
        "gptq_marlin": "int4",
    }
)
"""What a recipe's word for a quantization stores, where the config does not say it better."""


class Footing(msgspec.Struct, frozen=True, kw_only=True):
    """One target in one cell. ``gpus`` are all of its GPUs, ``replicas`` how many whole copies of the model they hold.

    ``gpu`` carries a bandwidth that the user measured where there is one, and no limit of operations (infinity) where
    nothing else is known of the place. ``wide`` is True for values of 4 bytes. ``why`` says what is missing.
    """

    name: str
    shape: ModelShape | None
    gpu: Gpu | None
    gpus: int | None
    replicas: int
    wide: bool
    speculative: bool
    why: tuple[str, ...]

    @property
    def weight_bytes(self) -> float | None:
        """Bytes of one copy of the model."""
        return None if self.shape is None else self.shape.weight_bytes(self.shape.stored) * (2 if self.wide else 1)

    @property
    def precision(self) -> str | None:
        """How the weights are stored, by name."""
        if self.shape is None:
            return None
        stored = self.shape.stored.name
        return "float32" if self.wide and stored == "bf16" else stored


def footing(serving: Serving, described: Mapping[str, Any], cell: str, target: str, server: str | None) -> Footing:
    """The footing of a target in a cell. ``described`` is run.json; ``server`` an instance of its server, if any."""
    served = serving.of(cell, target)
    if served is None:
        return Footing(
            name=target,
            shape=None,
            gpu=None,
            gpus=None,
            replicas=1,
            wide=False,
            speculative=False,
            why=(f"the run kept nothing of what {target} serves",),
        )
    machine = (described.get("machine") or {}).get("gpus") or []
    shape, no_shape = _shape(serving, served, target)
    place, no_place = _gpu(served, machine, target)
    gpus = served.gpu_count(machine)
    return Footing(
        name=served.name,
        shape=shape,
        gpu=place,
        gpus=gpus,
        replicas=_replicas(served, gpus),
        wide=_is_wide(served, _facts(described, target, server)),
        speculative=bool(served.options.get("speculative")),
        why=tuple(filter(None, (no_shape, no_place))),
    )


def _shape(serving: Serving, served: Served, target: str) -> tuple[ModelShape | None, str | None]:
    """The model's sizes in the precision that it is served in, or why they are not known."""
    if served.config is None or not 0 <= served.config < len(serving.configs):
        return None, f"no config.json of {target}'s model is at hand; name one with targets.{target}.config"
    fields = serving.configs[served.config]
    if not _sensible(fields):
        return None, f"the config.json of {target}'s model has sizes that no model has"
    try:
        precision = _precision(served.options.get("quantization"), fields)
        shape = shape_of(fields, served.name, place=f"config.json of {target}", precision=precision)
    except UsageError as error:
        return None, str(error)
    bits = _kv_bits(served.options.get("kv_dtype"))
    attention = msgspec.structs.replace(shape.attention, kv_values=shape.attention.kv_values * bits // 16)
    return msgspec.structs.replace(shape, attention=attention), None


def _sensible(fields: Mapping[str, Any]) -> bool:
    """False for a config whose sizes would take for ever to add up, or are no floating-point numbers any more."""
    nested = fields.get("text_config")
    sizes = {**fields, **(nested if isinstance(nested, dict) else {})}
    layers = sizes.get("num_hidden_layers")
    whole = [value for value in sizes.values() if isinstance(value, int)]
    return max(map(abs, whole), default=0) <= MOST and (not isinstance(layers, int) or layers <= MOST_LAYERS)


def _precision(quantization: Any, fields: Mapping[str, Any]) -> Precision | None:
    """How an engine was told to store the weights; None where the config says it. Raises UsageError for other words."""
    word = str(quantization or "none")
    if word == "none" or "quantization_config" in fields:
        return None
    if word not in _QUANTIZED:
        raise UsageError(f"how many bytes a weight of quantization {word!r} takes is not known here.")
    return PRECISIONS[_QUANTIZED[word]]


def _kv_bits(kv_dtype: Any) -> int:
    """Bits of a value in the KV cache: 8 of ``fp8_e4m3``; 16 for words without a number."""
    found = re.search(r"\d+", str(kv_dtype or ""))
    return int(found[0]) if found and int(found[0]) in (4, 8) else 16


def _gpu(served: Served, machine: Sequence[Mapping[str, Any]], target: str) -> tuple[Gpu | None, str | None]:
    """The peaks of the GPU that a target runs on, or why they are not known."""
    bandwidth = None if served.bandwidth_gb_s is None else served.bandwidth_gb_s * 1e9
    key = served.gpu or (_seen(served, machine) if served.launched else None)
    if key is not None:
        return gpu(key, bandwidth), None
    if bandwidth is not None:
        name = f"{served.bandwidth_gb_s:g} GB/s"
        return Gpu(name=name, memory_bytes=0.0, bandwidth_b_s=bandwidth, bf16_flop_s=math.inf, fp8_flop_s=None), None
    if served.launched and machine:
        names = ", ".join(sorted({str(one.get("name")) for one in machine}))
        return None, f"the peaks of {names} are not known here; name one that is like it with targets.{target}.gpu"
    if served.launched:
        return None, f"{target} runs on no GPU; measure the memory's bandwidth, targets.{target}.bandwidth_gb_s"
    return None, f"nobody knows what {target} runs on; name it with targets.{target}.gpu"


def _seen(served: Served, machine: Sequence[Mapping[str, Any]]) -> str | None:
    """The GPU that NVML names, if it is known and all that the target may use are the same."""
    used = [
        one
        for index, one in enumerate(machine)
        if not served.devices or index in served.devices or one.get("uuid") in served.devices
    ]
    names = {str(one.get("name")) for one in used}
    return _NVML.get(names.pop()) if len(names) == 1 else None


def _replicas(served: Served, gpus: int | None) -> int:
    """Copies of the model that answer side by side. Experts that are spread over all of them make them one."""
    copies, experts = served.parallel("data_parallel"), served.options.get("expert_parallel")
    spread = experts is True or served.parallel("expert_parallel") > 1  # a switch in vLLM, a number elsewhere
    return 1 if spread or not gpus or gpus % copies else copies


def _is_wide(served: Served, facts: Mapping[str, Any]) -> bool:
    """Whether values take 4 bytes: as the server says, else as it was told."""
    dtype = str(facts.get("dtype") or served.options.get("dtype") or "")
    return dtype.removeprefix("torch.") in ("float32", "float", "fp32")


def _facts(described: Mapping[str, Any], target: str, server: str | None) -> Mapping[str, Any]:
    """What an instance of a server said of itself; after a second start its folder has a number behind its name."""
    found: Mapping[str, Any] = {}
    for name, one in (described.get("servers") or {}).items():
        if server is not None and one.get("target") == target and (name == server or name.startswith(f"{server}-")):
            found = one.get("facts") or found
    return found
