"""What the workers of a repeat have written, before anybody reads it: is it all there, and is it fit to be kept?

In: request lines on the disk, and what the fleet says of its workers. Out: the same lines, without secrets.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from loadgen.errors import StoreError
from loadgen.record import from_line, to_line
from loadgen.redact import BEGINNING, redact
from loadgen.store import FREE, FULL, write_stream


def stop_if_full(lost: Sequence[str]) -> None:
    """A worker that cannot write what it measured is not like one that died: the next repeat would fare no better.
    ``lost`` are the sentences of those that were lost. Raises StoreError."""
    for text in lost:
        if any(os.strerror(number) in text for number in FULL):
            raise StoreError(f"{text}. What was written before is whole. {FREE}")


def strike_out_of(paths: Sequence[Path], secrets: Sequence[str]) -> None:
    """Request lines without secrets, which a server may have quoted. A file that has none, as nearly all have, is left
    as it is; in the others no field is touched but those that hold a server's words. Raises StoreError."""
    plain = [msgspec.json.encode(secret)[1:-1].decode() for secret in secrets]  # as it stands inside a JSON string
    for path in paths if plain else ():
        _strike_out_of(path, plain)


def _strike_out_of(path: Path, plain: Sequence[str]) -> None:
    beginnings = [secret.encode()[:BEGINNING] for secret in plain]
    with path.open("rb") as lines:
        if any(beginning in line for line in lines for beginning in beginnings):
            lines.seek(0)
            write_stream(path, lambda file: file.writelines(_without(line, plain) for line in lines))


def _without(line: bytes, plain: Sequence[str]) -> bytes:
    try:
        record = from_line(line)
    except msgspec.DecodeError:  # a line that was cut off, which nobody reads
        return redact(line.decode(errors="replace"), plain).encode()
    said = msgspec.json.encode((record.err, record.text, record.finish, record.server_times)).decode()
    clean = redact(said, plain)
    if clean == said:
        return line
    record.err, record.text, record.finish, record.server_times = msgspec.json.decode(clean)
    return to_line(record)
