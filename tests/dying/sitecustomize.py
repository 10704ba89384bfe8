"""Of workers in rounds of kill -9 (see ``mortal.py``): one that dies in the middle of a line, and its run with it."""

import os
import signal

_write = os.write
_left = [int(os.environ.get("DYING_WORKER", "0"))]


def _torn(fd: int, data: bytes) -> int:
    if "/requests-" in os.readlink(f"/proc/self/fd/{fd}"):
        _left[0] -= 1
        if _left[0] < 1:
            _write(fd, data[: len(data) * 2 // 3])
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
    return _write(fd, data)


if _left[0]:
    os.write = _torn
