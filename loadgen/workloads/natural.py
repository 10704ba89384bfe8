"""The prompts that ship with loadgen: English and Chinese, as people ask them, in ``natural.jsonl``.

They were written for this project: chat, code, maths, summarise (with the passage) and continue (a text to go on
with). Settings: ``tags`` and ``langs`` narrow the set; ``system: false`` leaves out the few prompts that have a system
message, which some models' templates refuse; ``raw: true`` sends the text alone, outside any chat template; ``as`` is
explained in ``template``. ``input_tokens``, a number or a distribution, cuts prompts of exactly that length out of them
(see ``passages``). A line of the file is ``{"id", "lang": "en" | "zh", "tag", "messages"}``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from importlib import resources
from typing import Any

import msgspec

from loadgen.errors import UsageError
from loadgen.lengths import Count, Draw, Lengths
from loadgen.record import Message, Prompt
from loadgen.workloads import Context, one_of, parse
from loadgen.workloads.order import place
from loadgen.workloads.passages import Passages
from loadgen.workloads.template import Form, Shaper


class Settings(msgspec.Struct, frozen=True):
    """``tags`` and ``langs`` are those to keep; None keeps all. ``system`` keeps prompts with a system message. With
    ``raw`` a prompt is the text of its messages, a blank line between them."""

    tags: list[str] | None = None
    langs: list[str] | None = None
    system: bool = True
    raw: bool = False
    form: Form = msgspec.field(name="as", default="text")
    input_tokens: Count | Lengths | None = None


class Line(msgspec.Struct, frozen=True):
    """One line of ``natural.jsonl``."""

    id: str
    lang: str
    tag: str
    messages: tuple[Message, ...]

    @property
    def with_system(self) -> bool:
        """True for a prompt that begins with a system message."""
        return self.messages[0].role == "system"


class Natural:
    """The shipped prompts, in a new seeded order on every pass. Raises UsageError where the template refuses one."""

    name = "natural"

    def __init__(self, lines: list[Line], sha256: str, context: Context, settings: Settings) -> None:
        self.size: int | None = len(lines)
        self._lines = lines
        self._sha256 = sha256
        self._seed = context.seed
        self._raw = settings.raw
        self._shaper = Shaper(self.name, context, settings.form, templated=not settings.raw)
        # Few enough to be rendered here, all of them, so that a template that refuses one says so before the run.
        self._sessions = [(self._prompt(line),) for line in lines]

    def session(self, index: int) -> tuple[Prompt, ...]:
        """One prompt."""
        return self._sessions[place(index, len(self._sessions), self._seed)]

    def _prompt(self, line: Line) -> Prompt:
        if self._raw:
            return self._shaper.as_text("\n\n".join(message.content for message in line.messages))
        try:
            return self._shaper.prompt(line.messages)
        except UsageError as error:
            hint = " Set workload.system: false to leave such prompts out." if line.with_system else ""
            raise UsageError(f"{error} That was natural's prompt {line.id}.{hint}") from error

    def describe(self) -> dict[str, Any]:
        """Counts by tag and language, and the SHA-256 of the shipped file (of all of it, whatever was chosen)."""
        return {
            "kind": self.name,
            "size": self.size,
            "tags": dict(Counter(line.tag for line in self._lines)),
            "langs": dict(Counter(line.lang for line in self._lines)),
            "raw": self._raw,
            "sha256": self._sha256,
            **self._shaper.describe(),
        }


def open(settings: dict[str, Any], context: Context) -> Natural | Passages:
    """The shipped prompts with these tags and languages. Raises UsageError for a tag or language that none has."""
    chosen = parse("natural", settings, Settings)
    data = resources.files("loadgen.workloads").joinpath("natural.jsonl").read_bytes()
    lines = msgspec.json.Decoder(Line).decode_lines(data)
    for key, wanted, known in (
        ("tags", chosen.tags, [line.tag for line in lines]),
        ("langs", chosen.langs, [line.lang for line in lines]),
    ):
        for word in wanted or ():
            one_of(f"workload.{key}", word, sorted(set(known)))
    kept = [line for line in lines if _wanted(line.tag, chosen.tags) and _wanted(line.lang, chosen.langs)]
    kept = [line for line in kept if chosen.system or not line.with_system]
    if not kept:
        raise UsageError(
            f"workload: prompts: natural has no prompt with tags {chosen.tags} and langs {chosen.langs}; leave one out."
        )
    if chosen.input_tokens is not None:
        for key in {"raw", "as"} & settings.keys():
            raise UsageError(
                f"workload.{key} means nothing beside input_tokens, whose prompts are token ids; remove it."
            )
        texts = ["\n\n".join(message.content for message in line.messages) for line in kept]
        return Passages("natural", texts, Draw("workload.input_tokens", chosen.input_tokens, context.folder), context)
    return Natural(kept, hashlib.sha256(data).hexdigest(), context, chosen)


def _wanted(word: str, chosen: list[str] | None) -> bool:
    return chosen is None or word in chosen
