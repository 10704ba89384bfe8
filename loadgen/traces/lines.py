"""Traces of one JSON object a line, with hash ids: what Mooncake's files and vLLM's timed traces have in common.

``hash_ids`` stand for the blocks of a prompt, from its beginning: the same id is the same tokens. The last block may
be partial. A line may have fewer ids than blocks (what is left is the prompt's own), or none; more are refused, since
they stand for tokens that the prompt does not have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from loadgen.errors import UsageError
from loadgen.traces import How, Row, TimeUnit, labels, nanoseconds, opened, tokens

OWN = {"time": "timestamp", "input": "input_length", "output": "output_length", "hash_ids": "hash_ids"}
"""The names that both formats use."""

_BOM = b"\xef\xbb\xbf"


def rows(path: Path, how: How, unit: TimeUnit, block_tokens: int) -> Iterator[Row]:
    """The requests of a file of JSON lines; blank lines are passed over. Raises UsageError, ``file:line: reason``."""
    named = labels(OWN, how)
    decoder = msgspec.json.Decoder(dict[str, Any])
    with opened(path) as file:
        for number, line in _lines(file, path):
            where = f"{path}:{number}"
            try:
                fields = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise UsageError(f"{where}: not a JSON object: {str(error) or 'nested too deeply'}.") from None
            if _wanted(fields, how.where, where):
                yield _row(fields, named, (unit, block_tokens), number, where)


def _lines(file: Any, path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(_BOM) if number == 1 else line
            if text.strip():
                yield number, text
    except (OSError, EOFError) as error:  # a .gz that is cut off, or none
        raise UsageError(f"{path} cannot be read: {error}.") from error


def _wanted(fields: Mapping[str, Any], where: Mapping[str, str], place: str) -> bool:
    for name, value in where.items():
        if name not in fields:
            raise UsageError(f"{place}: there is no {name!r}, which workload.where asks for; {_there(fields)}.")
        if str(fields[name]) != value:
            return False
    return True


def _row(fields: Mapping[str, Any], named: Mapping[str, str], of: tuple[TimeUnit, int], number: int, where: str) -> Row:
    unit, block_tokens = of
    for word in ("time", "input", "output"):
        if named[word] not in fields:
            raise UsageError(f"{where}: there is no {named[word]!r}; {_there(fields)}.")
    in_tok = tokens(fields[named["input"]], named["input"], where)
    ids = _ids(fields.get(named["hash_ids"]), named["hash_ids"], where)
    hold = -(-in_tok // block_tokens)
    if len(ids) > hold:
        raise UsageError(
            f"{where}: {len(ids)} {named['hash_ids']} of {block_tokens} tokens for a prompt of {in_tok}, which has "
            f"{hold} blocks; another workload.block_tokens?"
        )
    at = nanoseconds(fields[named["time"]], unit, named["time"], where)
    return Row(at, in_tok, tokens(fields[named["output"]], named["output"], where), ids, number)


def _ids(value: Any, label: str, where: str) -> tuple[int, ...]:
    """The ids as numbers of 64 bits; those that are text (hex digests, say) by their hash."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(
        isinstance(one, int | str) and not isinstance(one, bool) for one in value
    ):
        raise UsageError(f"{where}: {label} is no list of ids (numbers, or text).")
    return tuple(_id(one) for one in value)


def _id(one: int | str) -> int:
    if isinstance(one, int):
        return one % (1 << 64)
    return int.from_bytes(hashlib.blake2b(one.encode(), digest_size=8).digest(), "little")


def _there(fields: Mapping[str, Any]) -> str:
    return f"the line has {', '.join(list(fields)[:12]) or 'nothing'}"
