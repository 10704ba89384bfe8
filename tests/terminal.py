"""Runs a command in a terminal of a given width, and gives what it wrote there."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path


def in_terminal(argv: Sequence[str], folder: Path, env: Mapping[str, str], columns: int) -> tuple[int, str]:
    """Exit code, and everything that came to the terminal from standard output and standard error."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(argv, cwd=folder, env=dict(env), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    data = b""
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:  # Linux says so when the last writer is gone
            break
        if not piece:
            break
        data += piece
    os.close(ours)
    return process.wait(60), data.decode().replace("\r\n", "\n")
