"""Where prompts come from, one file per source: a scenario's ``workload.prompts`` is the name of a file here.

In: the settings that stand beside ``prompts`` in the scenario. Out: a `Source`, whose sessions are made of `Prompt`.
A session is a function of (seed, index) and nothing else, so worker processes may ask for any share of the sessions in
any order and together ask exactly what one worker would. Everything that can be wrong with the settings or with a file
is found by ``open``, before anything is measured. To add a source, add a file that has ``open``.

Some files here are shared by the sources and are no sources: ``order`` (which prompt comes when), ``ids`` (random token
ids), ``replies`` (how much is asked for), ``outline`` (what is known of a prompt before it is made), ``passages`` (text
of a stated length), ``template`` (chat messages to text), ``sandbox`` and ``charge`` (what a chat template may do),
``conversation_files``.
"""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast, get_args, get_origin, runtime_checkable

import msgspec

from loadgen.errors import UsageError
from loadgen.record import Prompt

_SHARED = ("charge", "conversation_files", "ids", "order", "outline", "passages", "replies", "sandbox", "template")
"""The files of this folder that are no workloads."""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What a source must know of the run.

    ``folder`` is the scenario's, for relative paths. ``template`` says who renders the model's chat template.
    ``model_path`` is a local folder with the model's tokenizer files, None where there is none. ``ask_tok`` output
    tokens are asked for, exactly that many if ``exact``; 0 where each request asks for a number of its own: one of the
    distribution ``output``, or, where that is None, what the source itself says. With ``probe`` the number holds for
    every request, whatever a source says. ``vocab_size`` stands in where neither the scenario nor the model's folder
    says how many token ids there are; None refuses.
    """

    seed: int
    ask_tok: int
    exact: bool = False
    output: dict[str, Any] | None = None
    folder: str = "."
    template: Literal["server", "client"] = "server"
    model_path: str | None = None
    probe: bool = False
    vocab_size: int | None = None


class Source(Protocol):
    """A workload that has been opened: the prompts of every session."""

    name: str
    """The workload's name, which becomes the prompts' ``source``."""
    size: int | None
    """How many distinct prompts there are; None where their number has no limit."""

    def session(self, index: int) -> tuple[Prompt, ...]:
        """The turns of session ``index`` (from 0). A function of (seed, index) alone."""

    def describe(self) -> dict[str, Any]:
        """What this source is (kind, size, tags, SHA-256 of its data), for ``run.json`` and the reports."""


@runtime_checkable
class Conversing(Source, Protocol):
    """A source whose sessions may have several turns. A later turn of `session` holds only what is new in it (user
    messages, how many tokens are asked for, the think time before it); the whole of it is made here, once the replies
    are known."""

    def turn(self, index: int, turn: int, replies: Sequence[str]) -> Prompt:
        """What turn ``turn`` (from 1) of session ``index`` asks after these replies to all turns before it."""


class Workload(Protocol):
    """What a workload module offers."""

    def open(self, settings: dict[str, Any], context: Context) -> Source:
        """The source with these settings. Raises UsageError for a setting or a file that cannot be used."""


def names() -> list[str]:
    """The workloads that exist, by file name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _SHARED)


def load(name: str) -> Workload:
    """The workload of this name. Raises UsageError with the list of those that exist, the nearest first."""
    if name not in names():
        raise UsageError(
            f"workload.prompts: {name!r} does not exist; did you mean {nearest(name, names())!r}? "
            f"There are: {', '.join(names())}. A file of your own is read by prompts: jsonl with path: FILE."
        )
    return cast(Workload, importlib.import_module(f"loadgen.workloads.{name}"))


Settings = TypeVar("Settings", bound=msgspec.Struct)


def parse(name: str, settings: dict[str, Any], shape: type[Settings]) -> Settings:
    """The settings of workload ``name`` as a ``shape``. Raises UsageError for one that is unknown or ill-typed."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(shape)}
    for key, value in settings.items():
        if key not in fields:
            raise UsageError(
                f"workload.{key}: prompts: {name} has no such setting; did you mean {nearest(str(key), fields)!r}? "
                f"It takes: {', '.join(fields)}."
            )
        kinds = (fields[key].type, *get_args(fields[key].type))
        words = next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), None)
        if words is not None and value is not None:
            one_of(f"workload.{key}", value, words)
    try:
        return msgspec.convert(settings, shape)
    except msgspec.ValidationError as error:
        reason = reason_of(error).replace("there is no ", "it needs ")
        place = "workload." if " - at `$." in str(error) else f"workload: prompts: {name}: "
        raise UsageError(f"{place}{reason}.") from None


def one_of(where: str, value: Any, known: Iterable[str]) -> None:
    """Raises UsageError unless ``value`` is one of the known words."""
    words = list(known)
    if value not in words:
        raise UsageError(
            f"{where}: {value!r} is not known; did you mean {nearest(str(value), words)!r}? "
            f"There are: {', '.join(words)}."
        )


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that is most like ``word``."""
    return difflib.get_close_matches(word, list(known), n=1, cutoff=0.0)[0]


def reason_of(error: Exception) -> str:
    """A decoding error of msgspec in the words of a user's file: ``place: expected a list, not text``."""
    reason, _, where = str(error).partition(" - at ")
    reason = re.sub(r"`([^`]*)`", lambda found: " or ".join(map(_plainly, found[1].split(" | "))), reason)
    for theirs, ours in (
        ("Input data was truncated", "the JSON ends too early"),
        ("Expected", "expected"),
        (", got ", ", not "),
        ("Object missing required field", "there is no"),
        ("Object contains unknown field", "there can be no"),
    ):
        reason = reason.replace(theirs, ours)
    place = where.strip("`").removeprefix("$").removeprefix(".")
    return f"{place}: {reason}" if place else reason


def _plainly(kind: str) -> str:
    plain = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "null": "nothing"}
    return {**plain, "array": "a list", "object": "a mapping"}.get(kind, kind)


def data_file(path: str, context: Context) -> Path:
    """The file that a setting names, relative to the scenario's folder. Raises UsageError where there is none."""
    file = Path(context.folder, Path(os.path.expanduser(path)))
    if file.is_dir():
        raise UsageError(f"workload.path: {file} is a folder; name the file in it.")
    if not file.is_file():
        raise UsageError(
            f"workload.path: {file} does not exist; a relative path starts at the scenario's folder ({context.folder})."
        )
    return file
