"""The model without a KV cache: every token computes the whole text before it anew.

What a program without a cache costs, shown on purpose: a reply of n tokens to a prompt of p tokens computes
n * (p + n / 2) tokens instead of p + n. The rows are text of different lengths, filled up behind with tokens that no
earlier position can see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hf_memory
import torch


class Recompute:
    """A model and the texts of its rows; the methods are those of `hf_slots.Slots`."""

    def __init__(self, model: Any, rows: int, devices: tuple[int, ...] = (), *, all_logits: bool = False) -> None:
        self.model = model
        self.rows = rows
        self._texts: list[list[int]] = []
        self._devices = devices
        self._all_logits = all_logits

    @property
    def used(self) -> int:
        """Rows in use."""
        return len(self._texts)

    def prefill(self, prompt: Sequence[int]) -> torch.Tensor:
        """Takes a prompt into the next free row; the logits (vocabulary) of its first new token."""
        logits = self._run([list(prompt)])[0]
        self._texts.append(list(prompt))
        return logits

    def decode(self, tokens: Sequence[int]) -> torch.Tensor:
        """Adds a token to each text and computes all texts; the logits (rows, vocabulary) of the next tokens."""
        self._texts = [[*text, token] for text, token in zip(self._texts, tokens, strict=True)]
        return self._run(self._texts)

    def drop(self, row: int) -> None:
        """Frees a row; the last row takes its place."""
        self._texts[row] = self._texts[-1]
        self._texts.pop()

    def cut(self, used: int) -> None:
        """Frees the rows from ``used`` on."""
        del self._texts[used:]

    def pretend(self, rows: int, length: int) -> None:
        """Says that so many rows hold so many tokens."""
        self._texts = [[0] * length for _ in range(rows)]

    def memory(self) -> hf_memory.Memory | None:
        """The GPUs' memory since the last reset, None on a CPU."""
        return hf_memory.read(self._devices)

    def reset_memory(self) -> None:
        """Starts the peaks of memory anew."""
        hf_memory.reset(self._devices)

    @torch.inference_mode()
    def _run(self, texts: list[list[int]]) -> torch.Tensor:
        longest = max(len(text) for text in texts)
        device = self.model.device
        ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts], device=device)
        lasts = torch.tensor([len(text) - 1 for text in texts], device=device)
        if self._all_logits:
            logits: torch.Tensor = self.model(input_ids=ids, use_cache=False).logits.float()
            return logits[torch.arange(len(texts), device=device), lasts]
        kept, place = lasts.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits
        return logits[torch.arange(len(texts), device=device), place].float()
