"""Files of other tools, read with distrust: the fields that are asked for, by name and type, or a sentence.

In: a file that some other program wrote, in a version that may be older or newer than those known here. Out: `Fields`,
which decode one field at a time, so that what nobody asks for (the texts of all replies) never becomes objects.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from loadgen.errors import UsageError

T = TypeVar("T")

LONGEST_S = 1e7
"""No benchmark lasts longer than a third of a year: a larger time is in another unit, or no time."""

MOST_TOKENS = 1 << 40
LARGEST_YAML = 16_000_000
"""Bytes. YAML becomes objects as a whole and slowly, some 50 times its size."""


class Fields:
    """The fields of one JSON object of a file. ``where`` names the object in sentences."""

    def __init__(self, raw: Mapping[str, msgspec.Raw], where: str) -> None:
        self._raw = raw
        self.where = where

    def __contains__(self, name: str) -> bool:
        return name in self._raw

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def get(self, name: str, type_: type[T]) -> T | None:
        """The field, None where it is absent or null. Raises UsageError where it is of another type."""
        raw = self._raw.get(name)
        if raw is None or bytes(raw) == b"null":
            return None
        try:
            return msgspec.json.decode(raw, type=type_)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise UsageError(f"{self.where}: {name}: {error}; a newer or older version of its tool?") from error

    def need(self, name: str, type_: type[T]) -> T:
        """The field. Raises UsageError where it is absent, null or of another type."""
        value = self.get(name, type_)
        if value is None:
            raise UsageError(f"{self.where} has no {name}; a newer or older version of its tool, or not its result.")
        return value

    def wrong(self, why: str) -> UsageError:
        """The error of an object whose fields contradict each other."""
        return UsageError(f"{self.where} cannot be read: {why}.")

    def object(self, name: str) -> Fields:
        """A field that is an object, empty where it is absent or null."""
        return Fields(self.get(name, dict[str, msgspec.Raw]) or {}, f"{self.where}: {name}")

    def objects(self, name: str) -> list[Fields]:
        """A field that is a list of objects, empty where it is absent or null."""
        found = self.get(name, list[dict[str, msgspec.Raw]]) or []
        return [Fields(raw, f"{self.where}: {name}[{i}]") for i, raw in enumerate(found)]


def read_bytes(path: Path) -> bytes:
    """The whole file. Raises UsageError where it cannot be read or is empty."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if not data.strip():
        raise UsageError(f"{path} is empty: the tool that wrote it may have been stopped.")
    return data


def parse(data: bytes | str, where: str) -> Fields:
    """One JSON object. Python's NaN and Infinity, which are no JSON and which tools write, count as null.

    Raises UsageError for anything that is no JSON object, also for a file that was cut off.
    """
    try:
        try:
            raw = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        except msgspec.ValidationError as error:
            raise UsageError(f"{where} holds no JSON object: {error}") from error
        except msgspec.DecodeError:
            cleaned = json.loads(data, parse_constant=lambda _: None)
            plain = json.dumps(cleaned, ensure_ascii=False).encode("utf-8", "replace")  # half a surrogate is no text
            raw = msgspec.json.decode(plain, type=dict[str, msgspec.Raw])
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise UsageError(f"{where} is no JSON, or was cut off: {_first_line(error)}") from error
    return Fields(raw, where)


def parse_yaml(path: Path) -> Fields:
    """A YAML file as if it were JSON. Raises UsageError for what is none, and for a file that is too large for YAML."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    size = path.stat().st_size
    if size > LARGEST_YAML:
        raise UsageError(f"{path} has {size / 1e6:.0f} MB, too many for YAML; import the JSON that its tool can write.")
    try:
        data = YAML(typ="safe").load(read_bytes(path))
        _check_size(data, size)
        return parse(msgspec.json.encode(data), str(path))
    except (YAMLError, RecursionError, UnicodeDecodeError, TypeError, ValueError, msgspec.MsgspecError) as error:
        raise UsageError(f"{path} is no YAML, or was cut off: {_first_line(error)}") from error


def _check_size(data: object, most: int) -> None:
    """Raises ValueError where references make more of the YAML than ``most`` values: each one takes a byte, unless an
    alias repeats it, and few aliases of aliases are enough to fill any memory."""
    waiting, count = [data], 0
    while waiting:
        one = waiting.pop()
        count += 1
        if count > most:
            raise ValueError("its aliases make more of it than it holds")
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def seconds(value: float | None, where: str, scale: float = 1.0) -> float | None:
    """A duration times ``scale`` (0.001 for milliseconds), None for None. Raises UsageError for what is no duration."""
    if value is None:
        return None
    found = value * scale
    if not (math.isfinite(found) and 0 <= found <= LONGEST_S):
        raise UsageError(f"{where}: {value!r} is no duration; the file is damaged, or its unit is not known here.")
    return found


def positive(value: float | None, where: str) -> float | None:
    """A number above zero that a load can have: requests in flight, a second, at once. None for None.

    Raises UsageError for any other.
    """
    if value is not None and not 0 < value <= 1e9:
        raise UsageError(f"{where}: {value!r} is no load.")
    return value


def tokens(value: float | None, where: str) -> int | None:
    """A count of tokens, None for None. Raises UsageError for what is none."""
    if value is None:
        return None
    if not 0 <= value <= MOST_TOKENS or value != int(value):
        raise UsageError(f"{where}: {value!r} is no number of tokens.")
    return int(value)


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
