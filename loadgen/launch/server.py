"""A running server: wait until it is ready, watch it, stop it, prove that it is gone. `loadgen.launch.start` makes one.

What it is and which processes are its own stands in server.json from before its start until after its end.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from loadgen.errors import LaunchError
from loadgen.launch import server_json
from loadgen.launch.command import Command
from loadgen.launch.containers import image_of
from loadgen.launch.environment import inherited
from loadgen.launch.facts import gather, installed_version
from loadgen.launch.hints import hint
from loadgen.launch.log import LogCopy, tail
from loadgen.launch.log_process import LogProcess
from loadgen.launch.models import model_revision
from loadgen.launch.ports import belongs_to_another, is_free
from loadgen.launch.processes import Tree, identify
from loadgen.launch.proof import Estate, StopProof, stop_and_prove
from loadgen.launch.ready import Readiness

if TYPE_CHECKING:
    import asyncio

PORT_TAKEN = re.compile(
    r"(?i)address (is )?already in use|EADDRINUSE|\[Errno (98|48)\]|port \S+ is (already )?(in use|taken)"
    r"|port is already allocated"
)


class PortLost(LaunchError):
    """Another process took the port between the choice and the server's bind."""


class LaunchCancelled(LaunchError):
    """The run was interrupted while a server was loading."""


class Spawned(msgspec.Struct, frozen=True):
    """A process that `start` has just made, and what must be known to end it. ``secrets`` are values to strike out;
    ``keep`` says that it may outlive us, and so may not print into a pipe that ends with us."""

    process: subprocess.Popen[bytes]
    record: dict[str, Any]
    cookie: str
    secrets: tuple[str, ...]
    memory_before: Mapping[int, int] | None
    keep: bool = False


class Server:
    """A server that was started by `start`. Use it in a ``with``, or call `stop`: it never ends by itself."""

    def __init__(self, command: Command, folder: Path, spawned: Spawned) -> None:
        self.command = command
        self.folder = folder
        self.log_path = folder / "server.log"
        self._process = spawned.process
        self._begun = time.monotonic()
        self._memory_before = spawned.memory_before
        self._state = spawned.record
        self._proof: StopProof | None = None
        self._port_lost = False
        self._saving = threading.Lock()  # the log's thread saves too, when it sees new children
        leader = identify(self._process.pid)
        self._tree = Tree(leader, spawned.cookie)
        self._state |= {"pid": self._process.pid, "pgid": self._process.pid}
        self._state |= {} if leader is None else leader.to_json()
        server_json.write(folder / server_json.FILE, self.describe())  # unlike later saves, this one must succeed
        self._log_start = (
            self.log_path.stat().st_size if self.log_path.exists() else 0
        )  # an earlier try may have written
        assert self._process.stdout is not None  # `start` asked for a pipe
        self._log: LogCopy | LogProcess
        if spawned.keep:
            self._log = LogProcess(self._process.stdout, self.log_path, spawned.secrets, self._look)
        else:
            self._log = LogCopy(os.dup(self._process.stdout.fileno()), self.log_path, spawned.secrets, self._look)
        self._process.stdout.close()

    @property
    def exit_code(self) -> int | None:
        """The engine's exit code, negative for the signal that ended it; None while it runs."""
        return self._process.poll()

    def alive(self) -> bool:
        """True while the started process runs. Cheap: one call of the system."""
        return self.exit_code is None and self._proof is None

    def log_tail(self, lines: int = 20) -> list[str]:
        """The last lines of its log."""
        return tail(self.log_path, lines, self._log_start)

    def describe(self) -> dict[str, Any]:
        """What server.json holds now."""
        return {
            **self._state,
            "exit_code": self.exit_code,
            "processes": [process.to_json() for process in list(self._tree.known.values())],
        }

    def wait_ready(self, timeout_s: float | None = None, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Return when the server is ready (see ready.py), by default within the recipe's own time. Blocks its thread.

        Raises LaunchError, with the log's tail, if the server dies, refuses or is too late, `PortLost` if another has
        its port, and `LaunchCancelled` as soon as ``cancelled()`` is true. The server is not stopped by any of them.
        """
        limit = self.command.ready.timeout_s if timeout_s is None else timeout_s
        import asyncio

        try:
            asyncio.run(self._ready(limit, cancelled))
        except PortLost:
            self._port_lost = True
            raise
        self._state["startup_s"] = round(time.monotonic() - self._begun, 3)
        self._state["facts"] |= {name: value for name, value in self._looked_up() if value is not None}
        self._tree.refresh()
        self._save("ready")

    def keep(self) -> None:
        """Leave the server up when we end, recorded as kept. Only for one that was started so (``start(keep=True)``).

        From now on nobody watches it; `kill_leftover` ends it, in this process or in a later one.
        """
        assert isinstance(self._log, LogProcess)  # else its next line would break it
        self._log.release()
        self._tree.refresh(thorough=True)
        self._save("kept")

    def leave_memory_to(self, other: Server) -> None:
        """Let ``other``, which goes on running, prove the memory of the GPUs that both use, when it stops.

        Before that nobody can tell whose memory is held there.
        """
        ours, theirs = self._memory_before or {}, other._memory_before or {}
        shared = ours.keys() & theirs.keys()
        other._memory_before = {**theirs, **{index: min(ours[index], theirs[index]) for index in shared}}
        self._memory_before = {index: ours[index] for index in ours.keys() - shared}

    def stop(self) -> StopProof:
        """End the server and everything it started, and look whether it is gone. A second call gives the same proof."""
        if self._proof is None:
            estate = Estate(
                tree=self._tree,
                container=self.command.container,
                stop=self.command.stop,
                port=self.command.port,
                grace_s=self.command.grace_s,
                memory_before=self._memory_before,
                owned_port=not self._port_lost,
            )
            self._proof = stop_and_prove(estate, reap=self._process.poll, exit_code=self._collected)
            self._log.finish(2.0)
            self._state["proof"] = msgspec.to_builtins(self._proof) | {"ok": self._proof.ok}
            self._state["ended"] = server_json.now()
            self._save("stopped" if self._proof.ok else "left")
        return self._proof

    def death(self, when: str) -> LaunchError:
        """The sentence for a server that has died ``when`` ("while loading"), with the last 20 lines of its log."""
        self._log.wait_for_end(0.15)
        code = self.exit_code
        how = f"ended by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        after = time.monotonic() - self._begun
        kind = PortLost if self._lost_its_port() else LaunchError
        return kind(f"{self._name} died {when}, {how}, {after:.1f} s after its start.\n{self._log_excerpt()}")

    def _lost_its_port(self) -> bool:
        """True if a server that has died never had its port: it says so, or another process has it."""
        if PORT_TAKEN.search("\n".join(self.log_tail(50))):
            return True
        port = self.command.port
        return self._state["startup_s"] is None and not is_free(port) and belongs_to_another(port, self._tree)

    def _looked_up(self) -> Iterator[tuple[str, str | None]]:
        """What is known of the engine without its saying so: never in place of what it says itself."""
        facts, environ = self._state["facts"], {**inherited(os.environ), **self.command.env}
        if not facts.get("version") and self.command.version:
            yield "version", installed_version(self.command.version, environ)
        if not facts.get("revision") and self.command.container is None:
            yield "revision", model_revision(self.command.model, environ)
        if self.command.container is not None:
            yield from image_of(self.command.container).items()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _ready(self, limit: float, cancelled: Callable[[], bool]) -> None:
        import asyncio

        import httpx

        key = next(iter(self.command.secret_env.values()), None)
        headers = {"Authorization": f"Bearer {os.environ.get(key, '')}"} if key else {}
        async with httpx.AsyncClient(
            base_url=self.command.base_url,
            headers=headers,
            timeout=httpx.Timeout(limit, connect=5.0),
            trust_env=False,  # loopback: no proxy, and no redirect is followed with a key
        ) as client:
            readiness = Readiness(self.command, client)
            task = asyncio.create_task(self._steps(readiness, client))
            try:
                await self._watch(task, readiness, limit, cancelled)
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, LaunchError):
                    await task

    async def _steps(self, readiness: Readiness, client: Any) -> None:
        await readiness.path_answers()
        if self.command.container is None and belongs_to_another(self.command.port, self._tree):
            raise PortLost(f"{self._name}: port {self.command.port} is answered by another process.")
        await readiness.serves()
        self._state["facts"] = await gather(self.command, client, self.log_path, self._log_start)

    async def _watch(
        self, task: asyncio.Task[None], readiness: Readiness, limit: float, cancelled: Callable[[], bool]
    ) -> None:
        """Wait for ``task`` and, every 50 ms, for the four things that make waiting senseless."""
        import asyncio

        while True:
            done, _ = await asyncio.wait({task}, timeout=0.05)
            if not self.alive():
                raise self.death("while loading")
            if done:
                try:
                    task.result()
                except PortLost:
                    raise
                except LaunchError as error:
                    raise LaunchError(f"{error}\n{self._log_excerpt()}") from error
                return
            if cancelled():
                raise LaunchCancelled(f"{self._name} was still loading when the run was interrupted.")
            if time.monotonic() - self._begun > limit:
                raise LaunchError(
                    f"{self._name} was not ready after {limit:.0f} s; it still waits for {readiness.waiting_for}. "
                    f"If it needs longer, raise ready.timeout_s of its recipe.\n{self._log_excerpt()}"
                )

    def _log_excerpt(self) -> str:
        lines = "\n".join(f"  {line}" for line in self.log_tail()) or "  (nothing)"
        return f"{hint(self.log_tail(50), self.command.install)}The last lines of {self.log_path}:\n{lines}"

    def _collected(self) -> int | None:
        """The exit code of a process that was seen dead: its parent may learn of it a moment later."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(1.0)
        return None

    def _look(self) -> None:
        """Remember new children, and write them down if there are any."""
        before = len(self._tree.known)
        self._tree.refresh()
        if len(self._tree.known) != before and self._proof is None:
            self._save(self._state["state"])

    def _save(self, state: str) -> None:
        """Write server.json. A disk that has become full must not keep us from stopping the server."""
        with self._saving, contextlib.suppress(OSError):
            self._state["state"] = state
            server_json.write(self.folder / server_json.FILE, self.describe())

    @property
    def _name(self) -> str:
        return f"{self.command.engine} (target {self.command.target})"
