"""What the workers of a repeat have written, before anybody reads it: is it all there, is it fit to be kept, and which
part of it is measured?

In: request lines on the disk, and what the fleet says of its workers. Out: the same lines, without secrets.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from loadgen.drive.job import Shape
from loadgen.errors import StoreError
from loadgen.record import from_line, read_records, to_line
from loadgen.redact import BEGINNING, redact
from loadgen.store import FREE, FULL, request_files, write_stream
from loadgen.summary import Window


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


def window_of(shape: Shape, warmed: float, folder: Path, stopped_at: float | None) -> Window:
    """The measured window, in seconds from the start of the repeat.

    It is the scenario's where it has a length; for a load that is limited by its count it goes from the first send
    to the last end of a measured request. An interrupted repeat ends when it was stopped.
    """
    if shape.window_s is not None and shape.requests is None:
        end = warmed + shape.window_s
        return Window(warmed, max(min(end, stopped_at or end), warmed + 1e-3))
    begin, end = None, warmed
    for record in read_records(request_files(folder)):
        if record.phase == "measure" and record.t_send is not None:
            begin = record.t_send if begin is None else min(begin, record.t_send)
            end = max(end, record.t_end or record.t_send)
    begin = warmed if begin is None else begin
    return Window(begin, max(end, begin + 1e-3))


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
