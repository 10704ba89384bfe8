"""Natural text of a stated length: pieces of the shipped prompts, in the model's own tokens.

In: texts, a length or a distribution of lengths. Out: prompts of exactly so many token ids, sent as they are. The texts
stand one after the other, in a ring; each prompt begins at a place of its own, so that none begins like another until
every place was used, and may begin and end in the middle of a sentence. Random ids are as long, but they are no text:
what depends on what is said (which experts of a mixture are chosen, how much is guessed right ahead) wants this.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from typing import Any

import msgspec

from loadgen.errors import UsageError
from loadgen.lengths import Draw
from loadgen.record import Prompt
from loadgen.workloads import Context
from loadgen.workloads.order import place
from loadgen.workloads.outline import Outline
from loadgen.workloads.template import Shaper, encoder


class Passages:
    """Pieces of a ring of tokens."""

    size: int | None = None

    def __init__(self, name: str, texts: Sequence[str], lengths: Draw, context: Context) -> None:
        """Raises UsageError where the model's tokenizer is not at hand."""
        self.name = name
        self._lengths = lengths
        self._context = context
        self._shaper = Shaper(name, context, templated=False)
        encode = encoder(context.model_path)
        if encode is None:
            raise UsageError(
                "workload.input_tokens: natural text of a stated length is cut by the model's tokenizer: it needs a "
                "local folder of the model with tokenizer.json, and the package "
                "tokenizers; prompts: synthetic needs neither."
            )
        self._ring = array("I", encode("\n\n".join(texts)))

    def session(self, index: int) -> tuple[Prompt, ...]:
        """One prompt."""
        start = place(index, len(self._ring), self._context.seed)
        ids: list[int] = []
        length = self._lengths.at(self._context.seed, "length", index)
        while len(ids) < length:
            ids += self._ring[start : start + length - len(ids)]
            start = 0
        return (self._shaper.as_ids(ids),)

    def outline(self, index: int) -> Outline:
        """The length."""
        return Outline(self.name, self._lengths.at(self._context.seed, "length", index), self._context.ask_tok)

    def describe(self) -> dict[str, Any]:
        """The length, how many tokens the texts have, and their SHA-256."""
        return {
            "kind": self.name,
            "size": None,
            "input_tokens": msgspec.to_builtins(self._lengths.said),
            "ring_tokens": len(self._ring),
            "ring_sha256": hashlib.sha256(self._ring.tobytes()).hexdigest(),
            "form": "ids",
        }
