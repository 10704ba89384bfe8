"""Nights for tests: an engine whose speed is scripted by its starts, a past that is copied, a webhook that listens."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from cli_runner import write_scenario

from loadgen.nights.events import Night, append
from loadgen.store import read_json, write_json

ENGINE = """
import json, os, sys
gaps, port, program = sys.argv[1:]
left = open(gaps).read().split()
gap = float(left[0])
if len(left) > 1:
    open(gaps, "w").write(" ".join(left[1:]))
if gap < 0:
    sys.exit("no kernel for this card")
script = json.dumps({"ttft_ms": 100, "gap_ms": gap})
os.execv(sys.executable, [sys.executable, "-S", program, "--port", port, "--script", script])
"""
"""A fake server that takes its gap between tokens from a file, a word a start, the last one for ever; < 0 dies."""

RECIPE = """
command: ['{python}', 'ENGINE', 'GAPS', '{port}', 'PROGRAM']
ready: {path: /health, probe: false, timeout_s: 60}
stop: {grace_s: 2}
"""

SCENARIO = """
name: watched
targets: {a: {engine: ./paced.yaml, model: m}}
workload: {prompts: natural, output: {exact: 12}}
load: {concurrency: 4, warmup_s: 0, window_s: 0.6, workers: 1}
repeats: 1
"""

NORMAL, SLOW = "10", "20"


class Place:
    """A folder with a scenario, its engine and a store. ``pace`` says how fast the next starts of the server are."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store, self._gaps = folder, folder / "store", folder / "gaps"
        self.hook: Hook | None = None
        (folder / "engine.py").write_text(ENGINE)
        program = Path(__file__).with_name("fake_server.py")
        words = {"ENGINE": folder / "engine.py", "GAPS": self._gaps, "PROGRAM": program}
        text = RECIPE
        for word, value in words.items():
            text = text.replace(word, str(value))
        (folder / "paced.yaml").write_text(text)
        self.pace(NORMAL)

    def pace(self, *gaps: str) -> None:
        self._gaps.write_text(" ".join(gaps))

    def remember(self) -> tuple[Path, str, int]:
        """All that a night changes, for `restore`."""
        copy = self.folder / "before"
        shutil.rmtree(copy, ignore_errors=True)
        if self.store.exists():
            shutil.copytree(self.store, copy)
        return copy, self._gaps.read_text(), len(self.hook.bodies) if self.hook else 0

    def restore(self, before: tuple[Path, str, int]) -> None:
        """As if the last night had never been."""
        copy, gaps, told = before
        shutil.rmtree(self.store)
        if copy.exists():
            copy.rename(self.store)
        self._gaps.write_text(gaps)
        if self.hook:
            del self.hook.bodies[told:]

    def scenario(self, more: str = "", text: str = SCENARIO) -> Path:
        return write_scenario(self.folder, text + more)

    def runs(self) -> list[Path]:
        return sorted(path.parent for path in self.store.glob("runs/*/*/run.json"))

    def copy_into_the_past(self, nights: int, spread: float = 0.03) -> None:
        """As many nights like the only one that is there, which vary by ``spread``."""
        (source,) = self.runs()
        for number in range(nights):
            factor = 1 + spread * (1 if number % 2 else -1)
            name = f"20200101T{number:06d}Z-watched-{number:06x}"
            run = self.store / "runs" / "2020-01-01" / name
            shutil.copytree(source, run)
            write_json(run / "run.json", {**read_json(run / "run.json"), "run": name})
            for path in run.glob("cells/*/*/*/*/summary.json"):
                result = read_json(path)
                result["summary"]["output_tok_s"] *= factor
                result["summary"]["ttft_s"]["p50"] *= factor**3
                write_json(path, result)
            at = "2020-01-01T00:00:00Z"
            append(self.store, [Night(at=at, run=name, scenario="watched", verdicts=(), exit_code=0)])


class Hook:
    """A webhook that keeps what it was told, and answers with ``status`` and ``retry_after``."""

    def __init__(self, url: str) -> None:
        self.url, self.status, self.bodies = url, 200, list[dict[str, Any]]()
        self.retry_after = ""

    def texts(self) -> list[str]:
        return [body["text"] for body in self.bodies]


@contextmanager
def listening() -> Iterator[Hook]:
    """A webhook on this machine."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["content-type"] == "application/json"
            hook.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(hook.status)
            self.send_header("content-length", "0")
            self.send_header("retry-after", hook.retry_after)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Tests are quiet."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        hook = Hook(f"http://127.0.0.1:{server.server_port}/services/T0/SECRET")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hook
        finally:
            server.shutdown()
            thread.join()
