"""First questions of real conversations, from a file in the ShareGPT format.

The file is one JSON array of ``{"conversations": [{"from": "human" | "gpt", "value": "..."}, ...]}``; the spellings
``user``/``assistant`` and ``role``/``content`` are read too. An entry's prompt is its first human turn, with the system
turn before it if there is one. As in the field's benchmarks, an entry counts only if it has two turns, so that the
question is one that was answered; how many were dropped and why stands in ``describe``. Settings: ``path``, ``order``,
``as``. Only the prompts stay in memory.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadgen.errors import UsageError
from loadgen.record import Message, Prompt
from loadgen.workloads import Context, data_file, parse, reason_of
from loadgen.workloads.order import Order, place
from loadgen.workloads.template import Form, Shaper

_HUMAN = ("human", "user")


class Settings(msgspec.Struct, frozen=True):
    """``path`` is relative to the scenario."""

    path: str
    order: Order = "seeded"
    form: Form = msgspec.field(name="as", default="text")


class Turn(msgspec.Struct, frozen=True):
    """One turn, in either spelling."""

    speaker: str | None = msgspec.field(name="from", default=None)
    value: str | None = None
    role: str | None = None
    content: str | None = None

    def message(self) -> Message:
        """The turn in loadgen's words; a speaker who is neither human nor system is the assistant."""
        speaker = self.speaker or self.role or ""
        role = "user" if speaker in _HUMAN else "system" if speaker == "system" else "assistant"
        return Message(role=role, content=self.value or self.content or "")


class Entry(msgspec.Struct, frozen=True):
    """One conversation."""

    conversations: tuple[Turn, ...] | None = None


class Questions(msgspec.Struct, frozen=True):
    """What a file gave: the prompts, and how many entries were dropped for which reason."""

    prompts: list[tuple[Message, ...]]
    dropped: Counter[str]
    sha256: str


class ShareGpt:
    """The first questions of a file's conversations."""

    name = "sharegpt"

    def __init__(self, questions: Questions, settings: Settings, context: Context) -> None:
        self.size: int | None = len(questions.prompts)
        self._questions = questions
        self._settings = settings
        self._seed = context.seed
        self._shaper = Shaper(self.name, context, settings.form)

    def session(self, index: int) -> tuple[Prompt, ...]:
        """One prompt."""
        prompts = self._questions.prompts
        return (self._shaper.prompt(prompts[place(index, len(prompts), self._seed, self._settings.order)]),)

    def describe(self) -> dict[str, Any]:
        """What was kept, and what was dropped for which reason."""
        return {
            "kind": self.name,
            "size": self.size,
            "path": self._settings.path,
            "order": self._settings.order,
            "dropped": dict(self._questions.dropped),
            "sha256": self._questions.sha256,
            **self._shaper.describe(),
        }


def open(settings: dict[str, Any], context: Context) -> ShareGpt:
    """The prompts of a ShareGPT file. Raises UsageError for a file that is none, or of which no entry can be kept."""
    chosen = parse("sharegpt", settings, Settings)
    source = ShareGpt(questions(data_file(chosen.path, context), _first_question), chosen, context)
    source.session(0)  # a template that does not fit says so now
    return source


def questions(path: Path, keep: Callable[[Sequence[Message]], tuple[Message, ...]]) -> Questions:
    """What ``keep`` keeps of each conversation; entries are decoded one at a time, so that memory holds the file only
    once. Raises UsageError for a file that is none, or of which no entry can be used."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    found = Questions([], Counter(), hashlib.sha256(data).hexdigest())
    decoder = msgspec.json.Decoder(Entry)
    for entry in _entries(path, data.removeprefix(b"\xef\xbb\xbf")):
        said = _said(decoder, entry)
        if isinstance(said, str):
            found.dropped[said] += 1
        else:
            found.prompts.append(keep(said))
    if not found.prompts:
        why = ", ".join(f"{count} {reason}" for reason, count in found.dropped.items()) or "the array is empty"
        raise UsageError(f"{path}: no conversation can be used: {why}; one needs a human turn and a reply to it.")
    return found


def _entries(path: Path, data: bytes) -> list[msgspec.Raw]:
    if not data.strip():
        raise UsageError(f"{path} is empty; a ShareGPT file is one JSON array of conversations.")
    try:
        return msgspec.json.decode(data, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        hint = ""
        if data.lstrip().startswith(b"{"):
            hint = " A file with one object a line is read by prompts: jsonl."
        raise UsageError(f"{path}: not one JSON array of conversations: {reason_of(error)}.{hint}") from None


def _first_question(said: Sequence[Message]) -> tuple[Message, ...]:
    """The system turn, if any, and the first human turn."""
    return tuple(said[: 2 if said[0].role == "system" else 1])


def _said(decoder: msgspec.json.Decoder[Entry], entry: msgspec.Raw) -> list[Message] | str:
    """What was said in a conversation, or the reason why it is dropped."""
    try:
        turns = decoder.decode(entry).conversations or ()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "with a shape that is not ShareGPT's"
    said = [turn.message() for turn in turns]
    system = 1 if said and said[0].role == "system" else 0
    if len(said) - system < 2:
        return "with fewer than two turns"
    if said[system].role != "user":
        return "that do not begin with a human turn"
    if not said[system].content.strip():
        return "with an empty question"
    return said
