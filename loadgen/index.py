"""``loadgen.db``: an SQLite index of the nights of a store, which can be rebuilt from its files at any time.

In: runs/ and events.jsonl, which are the truth. Out: rows. Nobody writes to the index what is not in the files; it is
brought up to date by looking at what they hold by now, under a lock, in one transaction.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path


def open_index(root: Path) -> sqlite3.Connection:
    """The index of a store, up to date. One that is corrupt, or of a later loadgen, is made anew. Raises StoreError."""
    raise NotImplementedError


def reindex(root: Path) -> int:
    """Makes the index anew from the store's files; the number of nights in it."""
    raise NotImplementedError
