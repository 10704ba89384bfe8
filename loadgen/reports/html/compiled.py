"""The compiled template of the page, kept where Python keeps modules: compiling it costs more than filling it in.

In: jinja's own bytecode, which knows its source and the versions of jinja and Python. A folder that cannot be written,
a full disk or a broken file cost the time that was to be saved, and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import sys
from pathlib import Path

from jinja2.bccache import Bucket, FileSystemBytecodeCache

_BROKEN = (pickle.UnpicklingError, EOFError, OSError, ValueError, TypeError, AttributeError, ImportError, IndexError)
"""What the unpickler raises for what a power cut left."""


class Compiled(FileSystemBytecodeCache):
    """Bytecode in the ``__pycache__`` of a folder of templates. ``maker`` is the file that says how they are compiled:
    with another one they are compiled anew."""

    def __init__(self, folder: Path, maker: Path) -> None:
        made = hashlib.sha256(maker.read_bytes()).hexdigest()[:16]
        super().__init__(str(folder / "__pycache__"), f"template-%s-{made}.cache")

    def load_bytecode(self, bucket: Bucket) -> None:
        """What was kept, if it is whole."""
        try:
            super().load_bytecode(bucket)
        except _BROKEN:
            bucket.reset()

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keeps it, where Python would keep a module."""
        if not sys.dont_write_bytecode:
            with contextlib.suppress(OSError):
                os.makedirs(self.directory, exist_ok=True)
                super().dump_bytecode(bucket)
