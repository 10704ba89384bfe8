"""Logits -> the next token of each row: greedy, or drawn by temperature, top_k and top_p."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from hf_reply import Ask


@dataclass
class Chooser:
    """How one request chooses: its sampling, its random numbers, and the tokens that would end it."""

    ask: Ask
    ends: frozenset[int]
    random: torch.Generator

    def barred(self, made: int) -> list[int]:
        """Tokens that may not come now, ``made`` tokens having come before: the ends, until min_tokens are there."""
        return sorted(self.ends) if made < self.ask.min_tokens and not self.ask.ignore_eos else []

    def finish(self, token: int, made: int) -> str | None:
        """Why this token, the ``made``-th, is the last; None if it is not."""
        if token in self.ends and not self.ask.ignore_eos:
            return "stop"
        return "length" if made >= self.ask.max_tokens else None


@torch.inference_mode()
def choose(logits: torch.Tensor, choosers: Sequence[Chooser], made: Sequence[int]) -> list[int]:
    """The next token of each row of ``logits`` (rows, vocabulary); ``made`` counts the tokens that each has had."""
    for row, (chooser, count) in enumerate(zip(choosers, made, strict=True)):
        if barred := chooser.barred(count):
            logits[row, barred] = float("-inf")
    tokens: list[int] = logits.argmax(-1).tolist()
    for row, chooser in enumerate(choosers):
        if chooser.ask.temperature > 0:
            tokens[row] = draw(logits[row], chooser)
    return tokens


def draw(logits: torch.Tensor, chooser: Chooser) -> int:
    """A token drawn from one row of logits. Drawn on the CPU, where a seed means the same on every machine."""
    ask = chooser.ask
    scores = logits.cpu() / ask.temperature
    if 0 < ask.top_k < scores.numel():
        scores[scores < scores.topk(ask.top_k).values[-1]] = float("-inf")
    if ask.top_p < 1:
        ordered, order = scores.sort(descending=True)
        shares = ordered.softmax(-1)
        outside = shares.cumsum(-1) - shares >= ask.top_p  # the token that crosses top_p stays in
        scores[order[outside]] = float("-inf")
    return int(torch.multinomial(scores.softmax(-1), 1, generator=chooser.random))
