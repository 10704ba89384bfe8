"""Prompts from a file of the user's, one JSON object a line.

    {"messages": [{"role": "user", "content": "..."}]}      a chat; roles are system, user, assistant
    {"prompt": "..."}                                       what a user says: the same as one user message
    {"token_ids": [1, 2, 3]}                                sent as they are

``output_tokens`` in a line replaces the scenario's ``output: {max: N}`` for that line (an ``exact`` output stays: it is
what makes replies comparable). Other fields are ignored, blank lines and a byte order mark are passed over. With
``raw: true`` a ``prompt`` is sent as the text that it is, outside any chat template. ``order: file`` keeps the file's
order, else every pass has a seeded one.

The whole file is checked when it is opened; after that only the lines' offsets stay in memory, 16 bytes each.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from array import array
from pathlib import Path
from typing import Annotated, Any

import msgspec

from loadgen.errors import UsageError
from loadgen.record import Message, Prompt
from loadgen.workloads import Context, data_file, nearest, parse, reason_of
from loadgen.workloads.order import Order, place
from loadgen.workloads.template import Form, Shaper

ROLES = ("system", "user", "assistant")
_BOM = b"\xef\xbb\xbf"


class Settings(msgspec.Struct, frozen=True):
    """``path`` is relative to the scenario; ``raw`` sends a ``prompt`` outside any chat template."""

    path: str
    order: Order = "seeded"
    raw: bool = False
    form: Form = msgspec.field(name="as", default="text")


class Line(msgspec.Struct, frozen=True):
    """One line; exactly one of the first three is there."""

    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    token_ids: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] | None = None
    output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None

    @property
    def key(self) -> str:
        """Which of the three it is."""
        return "messages" if self.messages is not None else "prompt" if self.prompt is not None else "token_ids"


class Index:
    """Where each prompt's line lies in the file, which line that is (from 1), and which keys the lines have."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.starts = array("Q")
        self.numbers = array("Q")
        self.sha256 = ""
        self.keys: set[str] = set()

    def scan(self, decoder: msgspec.json.Decoder[Line]) -> None:
        """Reads and checks the whole file. Raises UsageError, ``file:line: reason``, for the first bad line."""
        digest = hashlib.sha256()
        start = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                digest.update(line)
                begin = start
                start += len(line)
                if number == 1 and line.startswith(_BOM):
                    line, begin = line[len(_BOM) :], begin + len(_BOM)
                if line.strip():
                    self.keys.add(read_line(decoder, line, f"{self.path}:{number}").key)
                    self.starts.append(begin)
                    self.numbers.append(number)
        self.sha256 = digest.hexdigest()


class Jsonl:
    """The prompts of a file of lines; a line is read and decoded when its session is asked for."""

    name = "jsonl"

    def __init__(self, index: Index, decoder: msgspec.json.Decoder[Line], settings: Settings, context: Context) -> None:
        self.size: int | None = len(index.starts)
        self._index = index
        self._decoder = decoder
        self._settings = settings
        self._context = context
        templated = "messages" in index.keys or ("prompt" in index.keys and not settings.raw)
        self._shaper = Shaper(self.name, context, settings.form, templated)
        # pread carries its own offset, so a forked copy of this object cannot move the position under another.
        self._file = os.open(index.path, os.O_RDONLY | os.O_CLOEXEC)
        self._end = os.fstat(self._file).st_size
        weakref.finalize(self, os.close, self._file)

    def session(self, index: int) -> tuple[Prompt, ...]:
        """One prompt. Raises UsageError where the template refuses it, or the file was changed since it was opened."""
        at = place(index, len(self._index.starts), self._context.seed, self._settings.order)
        start = self._index.starts[at]
        stop = self._index.starts[at + 1] if at + 1 < len(self._index.starts) else self._end
        data = os.pread(self._file, stop - start, start).split(b"\n", 1)[0]
        where = f"{self._index.path}:{self._index.numbers[at]}"
        line = read_line(self._decoder, data, where)
        ask_tok = self._context.ask_tok
        if line.output_tokens is not None and not self._context.exact:
            ask_tok = line.output_tokens
        try:
            return (self._prompt(line, ask_tok),)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error

    def _prompt(self, line: Line, ask_tok: int) -> Prompt:
        if line.token_ids is not None:
            return self._shaper.as_ids(line.token_ids, ask_tok)
        if line.messages is not None:
            return self._shaper.prompt(line.messages, ask_tok)
        text = line.prompt or ""
        if self._settings.raw:
            return self._shaper.as_text(text, ask_tok)
        return self._shaper.prompt((Message(role="user", content=text),), ask_tok)

    def describe(self) -> dict[str, Any]:
        """The file's path as the scenario wrote it, its SHA-256, its order."""
        return {
            "kind": self.name,
            "size": self.size,
            "path": self._settings.path,
            "order": self._settings.order,
            "raw": self._settings.raw,
            "sha256": self._index.sha256,
            **self._shaper.describe(),
        }


def open(settings: dict[str, Any], context: Context) -> Jsonl:
    """The prompts of a file. Raises UsageError for a file that is missing or empty, or for its first bad line."""
    chosen = parse("jsonl", settings, Settings)
    decoder = msgspec.json.Decoder(Line)
    index = Index(data_file(chosen.path, context))
    try:
        index.scan(decoder)
        if not index.starts:
            raise UsageError(f"{index.path} holds no prompt; write one JSON object a line, as in {{'prompt': '...'}}.")
        source = Jsonl(index, decoder, chosen, context)
        source.session(0)  # a template that does not fit says so now
        return source
    except OSError as error:
        raise UsageError(f"{index.path} cannot be read: {error.strerror}.") from error


def read_line(decoder: msgspec.json.Decoder[Line], data: bytes, where: str) -> Line:
    """The meaning of a line; ``where`` (file:line) begins the sentence of a UsageError."""
    try:
        line = decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{where}: {_explain(error, data)}.") from None
    given = [key for key in ("messages", "prompt", "token_ids") if getattr(line, key) is not None]
    if len(given) != 1:
        found = " and ".join(given) if given else "none of them"
        raise UsageError(f"{where}: a line has exactly one of messages, prompt and token_ids; this one has {found}.")
    for number, message in enumerate(line.messages or ()):
        if message.role not in ROLES:
            raise UsageError(
                f"{where}: messages[{number}].role is {message.role!r}; did you mean {nearest(message.role, ROLES)!r}? "
                f"There are: {', '.join(ROLES)}."
            )
    if not (line.prompt or line.token_ids or any(message.content for message in line.messages or ())):
        raise UsageError(f"{where}: {given[0]} is empty; a request must ask something.")
    return line


def _explain(error: Exception, data: bytes) -> str:
    """What is wrong with a line, in words that point at the commonest causes."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "the file is UTF-16; save it as UTF-8"
    if data.lstrip().startswith(b"["):
        return "this is a JSON array; a jsonl file has one object a line (prompts: sharegpt reads ShareGPT's arrays)"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 (byte {error.start})"
    return reason_of(error)
