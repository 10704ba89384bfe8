"""How long replies are where each has a number of its own: a source's prompts are given the lengths that they ask for.

In: ``output`` as a scenario says it, ``{exact: N}`` or ``{max: N}`` with a number, a distribution (`loadgen.lengths`)
or the word ``trace``. Out: a source whose prompts say what they ask for. A length is drawn from (seed, session, turn)
alone; a line of a file that states its own keeps it, unless lengths are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from loadgen import lengths, workloads
from loadgen.errors import UsageError
from loadgen.record import Prompt
from loadgen.workloads import Context, Conversing, Source
from loadgen.workloads.outline import Outline, outline_of

TRACE = "trace"
"""The word for: each reply as long as the trace says."""


def open_source(name: str, settings: dict[str, Any], context: Context) -> Source:
    """The workload of this name with these settings, and with its replies' lengths. Raises UsageError."""
    source = workloads.load(name).open(settings, context)
    if context.ask_tok or context.output is None:
        return source
    drawn = lengths.Draw("workload.output", lengths.parse("workload.output", context.output), context.folder)
    return (DrawnTalk if isinstance(source, Conversing) else Drawn)(source, drawn, context)


def asked(where: str, output: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `Context` that say what is asked for: ``ask_tok``, ``exact``, ``output``. Raises UsageError;
    ``where`` begins its sentence."""
    given = [(word, output[word]) for word in ("exact", "max") if output.get(word) is not None]
    if len(given) != 1 or set(output) - {"exact", "max"}:
        raise UsageError(
            f"{where}: needs exactly one of exact and max, and has {', '.join(map(str, output)) or 'none'}."
        )
    word, value = given[0]
    fields = {"ask_tok": 0, "exact": word == "exact", "output": None}
    if value == TRACE:
        return fields
    length = lengths.parse(f"{where}.{word}", value)
    return {**fields, "ask_tok": length} if isinstance(length, int) else {**fields, "output": value}


class Drawn:
    """A source whose replies have drawn lengths."""

    def __init__(self, source: Source, drawn: lengths.Draw, context: Context) -> None:
        self.name = source.name
        self.size: int | None = source.size
        self._source = source
        self._drawn = drawn
        self._seed = context.seed

    def session(self, index: int) -> tuple[Prompt, ...]:
        """The prompts of a session, each with what it asks for."""
        return tuple(self._asking(prompt, index, turn) for turn, prompt in enumerate(self._source.session(index)))

    def outline(self, index: int) -> Outline:
        """The outline of the first prompt, with what it asks for."""
        outline = outline_of(self._source, index)
        return outline if outline.ask_tok else msgspec.structs.replace(outline, ask_tok=self._length(index, 0))

    def describe(self) -> dict[str, Any]:
        """The source's own description, and the distribution."""
        return {**self._source.describe(), "output": msgspec.to_builtins(self._drawn.said)}

    def _asking(self, prompt: Prompt, index: int, turn: int) -> Prompt:
        return prompt if prompt.ask_tok else msgspec.structs.replace(prompt, ask_tok=self._length(index, turn))

    def _length(self, index: int, turn: int) -> int:
        return self._drawn.at(self._seed, f"output:{turn}" if turn else "output", index)


class DrawnTalk(Drawn):
    """The same of conversations."""

    def turn(self, index: int, turn: int, replies: Sequence[str]) -> Prompt:
        """A later turn, with what it asks for."""
        assert isinstance(self._source, Conversing)
        return self._asking(self._source.turn(index, turn, replies), index, turn)
