"""`FakeServer`: the scripted server of `fake_server.py` as a process of its own, for tests.

    with FakeServer(ttft_ms=50, gap_ms=10) as server:
        ...                                     # send requests to server.url
    server.truth()                              # what it did, one dict a request, in the order in which they ended

``truth(n)`` may be called while the server runs: it waits until n requests have ended.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

_PROGRAM = Path(__file__).with_name("fake_server.py")


def sse_events(body: bytes) -> list[Any]:
    """The JSON of each server-sent event of a body; the end marker as it is."""
    found = [line[5:].strip() for line in body.replace(b"\r\n", b"\n").split(b"\n") if line.startswith(b"data:")]
    return [e.decode() if e == b"[DONE]" else json.loads(e) for e in found]


class FakeServer:
    """A running fake server. Other keyword arguments are the names of `fake_script.Script`.

    With ``tls`` it serves https under a certificate of its own, which stands in the file ``cert``.
    """

    def __init__(
        self, *, host: str = "127.0.0.1", port: int = 0, unix: str | None = None, tls: bool = False, **script: Any
    ) -> None:
        self._kept: str | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="fake-server-")
        self.truth_path = Path(self._folder.name, "truth.jsonl")
        argv = [
            sys.executable,
            "-S",
            str(_PROGRAM),
            "--host",
            host,
            "--port",
            str(port),
            "--truth",
            str(self.truth_path),
        ]
        # -S: the server needs the standard library alone, and coverage would slow it down
        argv += ["--script", json.dumps(script)] + (["--unix", unix] if unix else [])
        self.cert = _certificate(Path(self._folder.name)) if tls else None
        if self.cert is not None:
            argv += ["--cert", str(self.cert)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.stop()
            raise RuntimeError("the fake server did not start; its error stands above")
        self.host, self.port = host, int(line)
        scheme = "https" if tls else "http"
        self.url = f"unix:{unix}" if unix else f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def truth(self, n: int | None = None) -> list[dict[str, Any]]:
        """The truth of the requests that have ended; with ``n`` waits up to 60 s until there are so many."""
        deadline = time.monotonic() + 60
        while True:
            text = self._kept if self._kept is not None else self._read()
            found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
            if n is None or len(found) >= n:
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(found)} of {n} requests have ended after 60 s")
            time.sleep(0.005)

    def _read(self) -> str:
        return self.truth_path.read_text() if self.truth_path.exists() else ""

    def get(self, path: str) -> str:
        """The body of a page of the server (/metrics, /fake/stats)."""
        with urllib.request.urlopen(self.url + path, timeout=60) as reply:
            return str(reply.read().decode())

    def stats(self) -> dict[str, Any]:
        """The server's own lateness (µs), counts and CPU seconds."""
        found: dict[str, Any] = json.loads(self.get("/fake/stats"))
        return found

    def kill(self) -> None:
        """Ends the server as a crash would, in the middle of everything."""
        self.process.kill()
        self.stop()

    def stop(self) -> None:
        """Ends the server; its truth stays readable."""
        if self.process.stdout is None or self.process.stdout.closed:
            return
        self.process.terminate()
        self.process.wait(60)
        self.process.stdout.close()
        self._kept = self._read()
        self._folder.cleanup()


def _certificate(folder: Path) -> Path:
    """A PEM file with a new key and a certificate for this machine, good for a day. Needs the openssl program."""
    path = folder / "cert.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"]
    subprocess.run([*argv, "-keyout", str(path), "-out", str(folder / "public.pem")], check=True, capture_output=True)
    path.write_text(path.read_text() + (folder / "public.pem").read_text())
    return path
