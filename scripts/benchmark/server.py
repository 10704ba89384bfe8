"""The null server as a context, and what the benchmark's cases ask of it.

In: the folder that `bench.py` has built `null_server.c` into, and the server's flags. Out: its port and its truth log.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

Case = tuple[str, list[str], int, int, int]
"""Name, flags of the server, streams, requests, tokens a reply."""
PACED = ["--ttft-us", "50000", "--gap-us", "10000"]
SPREAD = [*PACED, "--spread"]


@contextmanager
def null_server(folder: Path, flags: Sequence[str]) -> Iterator[tuple[int, Path]]:
    """A null server: its port, and the path of its truth log, which is whole once this context is left."""
    truth = folder / "truth.txt"
    process = subprocess.Popen(
        [str(folder / "null_server"), "--with-parent", *flags, "--truth", str(truth)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline()), truth
        time.sleep(0.2)  # a client can be through before the server has written down its last replies
    finally:
        process.terminate()
        process.wait()
