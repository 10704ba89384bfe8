"""How long prompts and replies are, where it is not one number: distributions of lengths in tokens (or words).

In: the words of a scenario. Out: the length of a session, a function of (seed, what for, index) alone, so that every
worker and every machine draws the same. One of::

    {uniform: {min: 100, max: 200}}                         every whole number between them, equally often
    {normal: {mean: 1000, sd: 300, min: 1, max: 4000}}
    {lognormal: {mean: 600, sd: 900, max: 8000}}            mean and sd of the lengths themselves
    {file: {path: lengths.txt, min: 1, max: 4000}}          as often as a file has them

``min`` (1 unless it is said) and ``max`` truncate: what lies outside is not drawn at all, so that nothing piles up at
the ends; the mean is then that of what is left. A file has a length a line, or a histogram: a length and how often it
came, with white space, a comma or a semicolon between; lines that begin with # and a first line of headings are passed
over.

A normal or lognormal length is drawn by the inverse of its distribution function (Devroye 1986, "Non-Uniform Random
Variate Generation", section II.2), from the part of it that lies between the ends, and rounded.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from array import array
from bisect import bisect_right
from collections import Counter
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Any

import msgspec

from loadgen.errors import UsageError

MOST = 10_000_000
"""The longest prompt or reply, in tokens."""

Count = Annotated[int, msgspec.Meta(ge=1, le=MOST)]
Mean = Annotated[float, msgspec.Meta(gt=0, le=MOST)]


class Uniform(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every whole number from ``min`` to ``max``, both included, equally often."""

    min: Count
    max: Count


class Normal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A normal distribution, rounded and truncated."""

    mean: Mean
    sd: Mean
    min: Count = 1
    max: Count = MOST


class Lognormal(Normal, frozen=True, forbid_unknown_fields=True):
    """A lognormal distribution with this mean and standard deviation, rounded and truncated: many short, few long."""


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The lengths of a file, as often as it has them. The path is relative to the scenario."""

    path: str
    min: Count = 1
    max: Count = MOST


class Lengths(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A distribution of lengths by its name: exactly one of them."""

    uniform: Uniform | None = None
    normal: Normal | None = None
    lognormal: Lognormal | None = None
    file: File | None = None

    def __post_init__(self) -> None:
        if sum(getattr(self, name) is not None for name in self.__struct_fields__) != 1:
            raise ValueError(f"a distribution is exactly one of {', '.join(self.__struct_fields__)}")

    @property
    def chosen(self) -> tuple[str, Uniform | Normal | Lognormal | File]:
        """The name and the words of the one that is given."""
        return next((name, value) for name in self.__struct_fields__ if (value := getattr(self, name)) is not None)


class Draw:
    """A distribution that has been opened: `at` gives the length of a session, `shortest` and `longest` bound it."""

    def __init__(self, where: str, lengths: int | Lengths, folder: str = ".") -> None:
        """``where`` is the setting's path, for messages. Raises UsageError for a file or a range that has no length."""
        self.said = lengths
        self._normal: NormalDist | None = None
        self._logarithm = False
        self._values, self._upto = array("Q"), array("Q")
        self._range = (0.0, 1.0)
        if isinstance(lengths, int):
            self.shortest = self.longest = lengths
            return
        self.name, words = lengths.chosen
        self.shortest, self.longest = words.min, words.max
        if words.min > words.max:
            raise UsageError(f"{where}.{self.name}: min {words.min} is above max {words.max}; exchange them.")
        if isinstance(words, File):
            self._read(where, words, folder)
        elif isinstance(words, Normal):
            self._fit(where, words, isinstance(words, Lognormal))

    def at(self, seed: int, what: str, index: int) -> int:
        """The length of session ``index``; ``what`` keeps prompts and replies apart."""
        if self.shortest == self.longest:
            return self.shortest
        chance = int.from_bytes(hashlib.shake_128(f"{seed}:{what}:{index}".encode()).digest(8), "little")
        if self._values:
            return self._values[bisect_right(self._upto, chance % self._upto[-1])]
        if self._normal is None:
            return self.shortest + chance % (self.longest - self.shortest + 1)
        low, high = self._range
        return self._rounded(low + (high - low) * (chance + 0.5) / 2**64)

    def _rounded(self, quantile: float) -> int:
        assert self._normal is not None
        value = self._normal.inv_cdf(min(max(quantile, 1e-15), 1 - 1e-15))
        length = round(math.exp(min(value, 700)) if self._logarithm else value)
        return min(max(length, self.shortest), self.longest)

    def _fit(self, where: str, words: Normal, logarithm: bool) -> None:
        """The normal distribution to draw from, and the part of it that lies between the ends."""
        mean, sd = words.mean, words.sd
        if logarithm:  # moments of the lengths to those of their logarithms
            variance = math.log1p((sd / mean) ** 2)
            mean, sd = math.log(mean) - variance / 2, math.sqrt(variance)
        self._normal, self._logarithm = NormalDist(mean, sd), logarithm
        ends = (words.min - 0.5, words.max + 0.5)  # what rounds to the shortest and to the longest
        low, high = (self._normal.cdf(math.log(end) if logarithm else end) for end in ends)
        self._range = (low, high)
        if high - low < 1e-9:
            raise UsageError(
                f"{where}.{self.name}: next to nothing of mean {words.mean:g} and sd {words.sd:g} lies between "
                f"{words.min} and {words.max}; widen min and max, or mend the mean."
            )

    def _read(self, where: str, words: File, folder: str) -> None:
        """The lengths of a file between the ends, and their cumulated counts."""
        found = read_lengths(Path(folder, Path(os.path.expanduser(words.path))), f"{where}.file.path")
        kept = {length: found[length] for length in sorted(found) if words.min <= length <= words.max}
        if not kept:
            raise UsageError(
                f"{where}.file: {words.path} has no length from {words.min} to {words.max}; its lengths go from "
                f"{min(found)} to {max(found)}."
            )
        self._values = array("Q", kept)
        self._upto = array("Q", itertools.accumulate(kept.values()))
        self.shortest, self.longest = self._values[0], self._values[-1]


def read_lengths(path: Path, where: str) -> Counter[int]:
    """How often each length stands in a file. Raises UsageError, ``file:line: reason``, for the first bad line."""
    found: Counter[int] = Counter()
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                words = line.replace(",", " ").replace(";", " ").split()
                if not words or words[0].startswith("#") or (number == 1 and not words[0][0].isdigit()):
                    continue
                length, count = _pair(words, f"{path}:{number}")
                found[length] += count
    except OSError as error:
        raise UsageError(f"{where}: {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: {path} is not UTF-8 (byte {error.start}).") from None
    if not found:
        raise UsageError(f"{where}: {path} holds no length; write one a line, or a length and how often it came.")
    return found


def _pair(words: list[str], where: str) -> tuple[int, int]:
    """The length of a line and how often it came: once where that is not said."""
    try:
        length, count = (int(word) for word in (words if len(words) > 1 else [*words, "1"]))
    except ValueError:
        raise UsageError(
            f"{where}: {' '.join(words)[:60]!r} is neither a length nor a length and its count (whole numbers)."
        ) from None
    if not 1 <= length <= MOST or not 1 <= count <= 2**40:
        raise UsageError(
            f"{where}: {length} (x {count}) is no length: both are at least 1, and a length at most {MOST}."
        )
    return length, count


def parse(where: str, value: Any) -> int | Lengths:
    """A length as a scenario writes it, a number or a distribution. Raises UsageError that begins with ``where``."""
    names = ", ".join(Lengths.__struct_fields__)
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MOST:
            raise UsageError(f"{where}: {value} is no length; it is from 1 to {MOST:,}.")
        return value
    if not isinstance(value, dict):
        raise UsageError(
            f"{where}: {str(value)[:60]!r} is no length; write a number, or one of {names} with its words."
        )
    try:
        return msgspec.convert(value, Lengths)
    except msgspec.ValidationError as error:
        said, _, place = str(error).replace("`", "").partition(" - at $")
        known = f"; there are {names}" if "unknown field" in said and not place else ""
        raise UsageError(f"{where}{place}: {said[:1].lower()}{said[1:]}{known}.") from None


def most(said: int | Lengths) -> int | None:
    """The longest length as far as the words say; None where they set no end."""
    if isinstance(said, int):
        return said
    end = said.chosen[1].max
    return None if end == MOST else end


def words_of(value: Any) -> str:
    """A length in words, for tables and sentences: ``512``, ``lognormal mean 600 sd 900``."""
    if not isinstance(value, dict):
        return str(value)
    name, words = next(iter(value.items()))
    return " ".join([str(name), *(f"{key} {number}" for key, number in words.items())])
