"""Random weights in the place of a checkpoint: `--load-format dummy`.

transformers reads a checkpoint through objects that stand for a tensor in a file and give the part that is asked for.
`RandomWeights` stands for a tensor that is nowhere: the part that is asked for is drawn on the device when it is asked
for. So the whole of transformers' loading is used, the plan of tensor parallelism, the layers' devices and the
quantization while loading among it, nothing passes through the CPU's memory, and a quantized model never takes more
than itself and one plain tensor.
"""

from __future__ import annotations

import importlib
import zlib
from dataclasses import dataclass
from typing import Any

import torch

STANDARD_DEVIATION = 0.02
"""Of the normal distribution, where config.json has no initializer_range."""


@dataclass(frozen=True)
class RandomWeights:
    """One tensor to be drawn: matrices from a normal distribution, biases 0, other vectors (norms) 1. The seed and the
    name decide the numbers, so that what is not split is the same in every rank."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: str
    deviation: float
    seed: int

    def get_shape(self) -> list[int]:
        """The whole tensor's shape; the name is safetensors'."""
        return list(self.shape)

    def get_dtype(self) -> str:
        """The type as safetensors writes it."""
        return {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}[self.dtype]

    def __getitem__(self, part: Any) -> torch.Tensor:
        """A part of the tensor, drawn now."""
        shape = torch.empty(self.shape, device="meta")[part].shape
        if len(self.shape) < 2:
            fill = torch.zeros if self.name.endswith("bias") else torch.ones
            return fill(shape, dtype=self.dtype, device=self.device)
        random = torch.Generator(self.device).manual_seed(zlib.crc32(self.name.encode()) ^ self.seed)
        made = torch.empty(shape, dtype=self.dtype, device=self.device)
        return made.normal_(0.0, self.deviation, generator=random)


def random_state(config: Any, dtype: torch.dtype, device: str, seed: int) -> tuple[type[Any], dict[str, RandomWeights]]:
    """The model's class and a checkpoint of random weights for its config."""
    factory: Any = importlib.import_module("transformers").AutoModelForCausalLM
    with torch.device("meta"):
        model = factory.from_config(config, dtype=dtype)
    deviation = getattr(config.get_text_config(), "initializer_range", None) or STANDARD_DEVIATION
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    state = {
        name: RandomWeights(name, tuple(tensor.shape), dtype, device, deviation, seed)
        for name, tensor in model.state_dict().items()
        if name not in tied
    }
    return type(model), state
