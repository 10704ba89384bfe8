"""A container engine for tests: the real ``docker`` command line against a podman service of our own.

Its images, containers and volumes live in a temporary folder, so nothing of the user's is seen or touched. The only
image is made from scratch of ``tgi_stand_in.c``: no registry is asked. Needs root (as podman's networks do), and the
programs that `MISSING` names; the tests are skipped where one is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IMAGE = "localhost/tgi-stand-in:3.3.7"
SOURCE = Path(__file__).with_name("tgi_stand_in.c")

CONFIG = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
[engine]
runtime = "runc"
"""
"""crun does not start on machines that mix both kinds of control groups; higher limits are not ours to give."""


def missing() -> str | None:
    """What this machine lacks to run containers, as a sentence; None if nothing."""
    if os.geteuid() != 0:
        return "podman's networks need root"
    absent = [name for name in ("docker", "podman", "runc", "catatonit", "gcc") if shutil.which(name) is None]
    how = "Debian: apt-get install --no-install-recommends podman runc catatonit docker.io gcc libc6-dev"
    return f"there is no {', '.join(absent)} here ({how})" if absent else None


class Engine:
    """The running service. ``socket`` is its address for ``DOCKER_HOST``."""

    def __init__(self, folder: Path) -> None:
        self._podman = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run"]
        (folder / "containers.conf").write_text(CONFIG)
        self._env = {**os.environ, "CONTAINERS_CONF": f"{folder}/containers.conf"}
        self._folder = folder
        self.socket = f"unix://{folder}/s"

    def build(self) -> None:
        """Make the image."""
        made = self._folder / "image"
        made.mkdir()
        subprocess.run(["gcc", "-static", "-O1", "-pthread", "-o", made / "tgi", SOURCE], check=True)
        (made / "Dockerfile").write_text('FROM scratch\nCOPY tgi /tgi\nENTRYPOINT ["/tgi"]\n')
        self._run("build", "--isolation", "chroot", "-t", IMAGE, str(made))

    def serve(self) -> subprocess.Popen[bytes]:
        """Start the service; it answers when this returns."""
        with (self._folder / "service.log").open("wb") as log:
            service = subprocess.Popen(
                [*self._podman, "system", "service", "--time=0", self.socket],
                env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + 30
        while not (self._folder / "s").exists():
            if service.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self._folder / "service.log").read_text())
            time.sleep(0.05)
        return service

    def clear(self) -> None:
        """Remove every container, image and volume of this engine."""
        self._run("rm", "-af", "-t", "0", check=False)
        self._run("volume", "rm", "-af", check=False)
        self._run("rmi", "-af", check=False)

    def _run(self, *words: str, check: bool = True) -> None:
        subprocess.run([*self._podman, *words], env=self._env, check=check, capture_output=True, timeout=120)


@contextmanager
def container_engine(folder: Path) -> Iterator[Engine]:
    """An engine in ``folder`` (short: its socket lies there) that has the image; nothing of it is left afterwards."""
    engine = Engine(folder)
    engine.build()
    service = engine.serve()
    try:
        yield engine
    finally:
        engine.clear()
        service.terminate()
        service.wait(20)


def docker(*words: str) -> str:
    """What ``docker WORDS`` prints."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()
