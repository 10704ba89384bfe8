"""What the workers of a repeat have written, before anybody reads it: is it all there, and is it fit to be kept?

In: request lines on the disk, and what the fleet says of its workers. Out: the same lines, without secrets.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from loadgen.errors import StoreError
from loadgen.redact import BEGINNING, redact
from loadgen.store import FREE, FULL, write_stream


def stop_if_full(lost: Sequence[str]) -> None:
    """A worker that cannot write what it measured is not like one that died: the next repeat would fare no better.
    ``lost`` are the sentences of those that were lost. Raises StoreError."""
    for text in lost:
        if any(os.strerror(number) in text for number in FULL):
            raise StoreError(f"{text}. What was written before is whole. {FREE}")


def strike_out_of(paths: Sequence[Path], secrets: Sequence[str]) -> None:
    """Request lines without secrets, which a server may have quoted in its errors. A file that has none, as nearly all
    have, is left as it is. Raises StoreError."""
    plain = [msgspec.json.encode(secret)[1:-1].decode() for secret in secrets]  # as it stands inside a JSON string
    for path in paths if plain else ():
        _strike_out_of(path, plain)


def _strike_out_of(path: Path, plain: Sequence[str]) -> None:
    with path.open("rb") as lines:
        if any(secret.encode()[:BEGINNING] in line for line in lines for secret in plain):
            lines.seek(0)
            write_stream(path, lambda file: file.writelines(redact(line.decode(), plain).encode() for line in lines))
