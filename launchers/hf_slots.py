"""The model with a place for each sequence of the batch: prefill of one prompt, one decode step of all.

In: token ids. Out: the logits of the next token. Sequence i lives in row i of the cache (`hf_cache`), rows 0..n-1 are
in use, and a row that ends is filled with the last one, so that a step computes no empty place. A step attends over as
many positions as the longest row has; the shorter rows mask the rest. That reads some padding, and it is the price for
plain dense attention: the paged way (`hf_paged`) packs all sequences into one, which on a CPU makes every sequence
attend to the keys of all others.

With a static cache a step is filled up to a power of two of rows and attends over all positions, so that there are few
shapes and a compiler can know them all beforehand; the rows that fill it up are free ones, and nobody reads them.

Only models whose every layer has full attention fit; `unfit` says so in a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import hf_memory
import torch
from hf_cache import SlotCache
from transformers import DynamicCache


class Rows(Protocol):
    """What batches sequences: `Slots`, `Grown`, `Recompute`, or `Led` around one of them. Rows 0..used-1 are in use."""

    rows: int

    @property
    def used(self) -> int:
        """Rows in use."""

    def prefill(self, prompt: Sequence[int]) -> torch.Tensor:
        """Takes a prompt into the next free row; the logits (vocabulary) of its first new token."""

    def decode(self, tokens: Sequence[int]) -> torch.Tensor:
        """One step: the newest token of each row goes in, the logits (rows, vocabulary) of the next come out."""

    def drop(self, row: int) -> None:
        """Frees a row; the last row takes its place."""

    def cut(self, used: int) -> None:
        """Frees the rows from ``used`` on: all of them, or the one of a prefill that failed."""

    def pretend(self, rows: int, length: int) -> None:
        """Frees every row and says that so many hold so many tokens: for a warm-up at full size."""

    def memory(self) -> hf_memory.Memory | None:
        """The GPUs' memory since the last reset, None on a CPU."""

    def reset_memory(self) -> None:
        """Starts the peaks of memory anew."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """How slots run: ``static`` shapes, a ``compiled`` mode of torch.compile or None, ``all_logits`` of a prompt
    instead of the last, and the GPUs whose memory is counted."""

    static: bool = False
    compiled: str | None = None
    all_logits: bool = False
    devices: tuple[int, ...] = ()


class Slots:
    """A model and its rows. Every method is called from one thread at a time."""

    def __init__(self, model: Any, rows: int, length: int, way: Way = Way()) -> None:
        self.model = model
        self.rows = rows
        self.length = length
        self.lengths: list[int] = []
        self._way = way
        self._cache = SlotCache(rows, length, fixed=way.static)
        self._flash = "flash" in str(model.config._attn_implementation)
        self._keep = {"logits_to_keep": 1} if takes_logits_to_keep(model) and not way.all_logits else {}
        self._step = model if way.compiled is None else compiled(model, way.compiled)

    @property
    def used(self) -> int:
        """Rows in use."""
        return len(self.lengths)

    @torch.inference_mode()
    def prefill(self, prompt: Sequence[int]) -> torch.Tensor:
        """Computes a prompt into the next free row; the logits (vocabulary) of its first new token."""
        cache = DynamicCache(config=self.model.config)
        ids = torch.tensor([prompt], device=self.model.device)
        output = self.model(input_ids=ids, past_key_values=cache, use_cache=True, **self._keep)
        logits: torch.Tensor = output.logits.float()[0, -1] if self._way.all_logits else output.logits[0, -1].float()
        self._cache.fill(self.used, cache)
        self.lengths.append(len(prompt))
        return logits

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int]) -> torch.Tensor:
        """One step: the newest token of each row goes in, the logits (rows, vocabulary) of the next come out."""
        device, cache, used = self.model.device, self._cache, self.used
        idle = [0] * (step_rows(used, self.rows) - used if self._way.static else 0)
        cache.positions = torch.tensor(self.lengths + idle, device=device)
        cache.rows = torch.arange(used + len(idle), device=device)
        cache.longest = self.length if self._way.static else max(self.lengths) + 1
        cache.clear_to(cache.longest)
        if self._way.compiled:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        output = self._step(
            input_ids=torch.tensor([*tokens, *idle], device=device)[:, None],
            attention_mask=self._mask(),
            position_ids=cache.positions[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        self.lengths = [length + 1 for length in self.lengths]
        logits: torch.Tensor = output.logits[:used, -1]
        return logits.float()

    def _mask(self) -> torch.Tensor | None:
        """Hides the positions that a row does not have: what is added to the scores, or for flash attention, which
        leaves hidden positions out, which of them are there."""
        cache, device = self._cache, self.model.device
        hidden = torch.arange(cache.longest, device=device) > cache.positions[:, None]
        if self._flash:
            return ~hidden
        mask = torch.zeros(hidden.shape, dtype=self.model.dtype, device=device).masked_fill_(hidden, float("-inf"))
        return mask[:, None, None]

    @torch.inference_mode()
    def drop(self, row: int) -> None:
        """Frees a row; the last row takes its place."""
        last = self.used - 1
        if row != last:
            self._cache.move(last, row, self.lengths[last])
            self.lengths[row] = self.lengths[last]
        self.lengths.pop()

    def cut(self, used: int) -> None:
        """Frees the rows from ``used`` on."""
        del self.lengths[used:]

    def pretend(self, rows: int, length: int) -> None:
        """Says that so many rows hold so many tokens."""
        self.lengths = [length] * rows

    def memory(self) -> hf_memory.Memory | None:
        """The GPUs' memory since the last reset, None on a CPU."""
        return hf_memory.read(self._way.devices)

    def reset_memory(self) -> None:
        """Starts the peaks of memory anew."""
        hf_memory.reset(self._way.devices)


def step_rows(used: int, rows: int) -> int:
    """The rows of a step of fixed shape: the next power of two, at most all."""
    return int(min(1 << (used - 1).bit_length(), rows))


def compiled(model: Any, mode: str) -> Any:
    """The model as torch.compile makes it: one program for each number of rows."""
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    return torch.compile(model, mode=None if mode == "default" else mode, dynamic=False)


def unfit(config: Any) -> str | None:
    """Why a model cannot be run in slots, as the second half of a sentence; None where it can."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    if kinds - {"full_attention"}:
        return f"its layers are {', '.join(sorted(kinds))}, and slots hold full attention only"
    attention = str(text._attn_implementation)
    if attention not in ("sdpa", "eager") and "flash" not in attention:
        return f"slots need --attn sdpa, eager or a flash attention, and it is {attention}"
    return None


def takes_logits_to_keep(model: Any) -> bool:
    """Whether a model can be told to compute the logits of its last positions only."""
    asks = getattr(model, "_supports_logits_to_keep", None)
    return bool(callable(asks) and asks())
