"""A small program that behaves like an engine in all the ways that matter to a launcher, and its recipe."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loadgen.launch import Command

Make = Callable[..., Callable[[int], Command]]
"""Takes a mode of the engine and more of a target; gives what `start_ready` takes."""

ENGINE = """
import argparse, http.server, json, os, signal, socket, subprocess, sys, time

flags = argparse.ArgumentParser()
flags.add_argument("--port", type=int)
flags.add_argument("--name")
flags.add_argument("--mode", default="good")
flags.add_argument("--delay", type=float, default=0.0)
flags.add_argument("--say", action="append", default=[])
flags = flags.parse_args()
for line in flags.say:
    print(line, flush=True)
if flags.mode == "orphan":
    # a child in a session of its own that ignores SIGTERM, and whose parent ends: only the cookie is left of it
    away = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    middle = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {away!r}], start_new_session=True)"
    subprocess.run([sys.executable, "-c", middle], check=True)
if flags.mode == "child":
    away = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", away])
if flags.mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(flags.delay)
if flags.mode == "dies":
    for number in range(30):
        print("line", number)
    sys.exit("no memory for this model")
if flags.mode == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if flags.mode == "never":
    time.sleep(600)

class Engine(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked = 0

    def answer(self, status, value, **headers):
        body = json.dumps(value).encode() if not isinstance(value, bytes) else value
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/health":
            Engine.asked += 1
            self.answer(503 if flags.mode == "warming" and Engine.asked < 3 else 200, {})
        elif self.path == "/v1/models":
            self.answer(200, {"data": [{"id": "another" if flags.mode == "misnamed" else flags.name}]})
        elif self.path == "/info":
            self.answer(200, {"model_id": "another" if flags.mode == "misnamed" else flags.name})
        elif self.path == "/version":
            self.answer(200, {"version": "1.10"})
        elif self.path == "/metrics":
            self.answer(200, b'kv{a="1"} 100\\nkv{a="2"} 28\\nkv_more 5\\n')
        else:
            self.answer(404, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        print("asked", json.dumps(body, sort_keys=True), self.headers.get("authorization"), flush=True)
        if self.path == "/load":
            return self.answer(200, {})
        if flags.mode == "sick":
            os._exit(3)
        if flags.mode == "redirecting":
            return self.answer(307, {}, location=f"http://127.0.0.1:{flags.port}/elsewhere")
        if flags.mode == "listing":
            return self.answer(200, [{"generated_text": "a", "details": {"generated_tokens": 1}}])
        if flags.mode == "failing":
            return self.answer(500, {"error": {"message": "out of pages"}})
        if flags.mode == "strict":
            return self.answer(400, {"error": {"message": "unknown field ignore_eos"}})
        if flags.mode == "html":
            return self.answer(200, b"<html>hello</html>")
        if flags.mode == "mute":
            return self.answer(200, {"choices": [{"message": {"content": ""}}], "usage": {"completion_tokens": 0}})
        self.answer(200, {"choices": [{"message": {"content": "a"}, "finish_reason": "length"}],
                          "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    def log_message(self, *words):
        pass

try:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", flags.port), Engine)
except OSError as error:
    sys.exit("no endpoint" if flags.mode == "terse" else f"cannot bind: {error}")
print("listening", flush=True)
server.serve_forever()
"""


RECIPE = """
command: ["{python}", ENGINE, --port, "{port}", --name, "{served_name}"]
options:
  mode: [--mode, "{value}"]
  delay: [--delay, "{value}"]
  say: {args: [--say, "{value}"], each: true}
  load: {preload: [{path: /load, body: {model: "{model}"}}]}
exact: {ignore_eos: true, min_tokens: "{n}"}
ready: {path: /health, models: /v1/models, timeout_s: 30}
metrics: /metrics
api_key: ENGINE_KEY
facts:
  version: {get: /version, field: version}
  kv_tokens: {metric: kv}
  pages: {log: 'has ([0-9,]+) pages', number: true}
  silent: {log: '(never said)'}
stop: {grace_s: 1}
"""


STAND_IN = """#!PYTHON
import os, pathlib, signal, subprocess, sys, time
held = pathlib.Path("FOLDER/containers"); held.mkdir(exist_ok=True)
verb, rest = sys.argv[1], sys.argv[2:]
if verb == "run":
    label = [word for word in rest if word.startswith("loadgen.server=")][0]
    args = rest[rest.index("stand-in") + 1:]
    env = {name: value for name, value in os.environ.items() if name != "LOADGEN_SERVER"}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    middle = (
        "import os, subprocess, sys; away = subprocess.Popen(sys.argv[1:], start_new_session=True, stdout=2);"
        "print(away.pid, flush=True); os._exit(0)"
    )
    words = [sys.executable, "-c", middle, sys.executable, "FOLDER/engine.py", *args]
    daemon = subprocess.Popen(
        words, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    (held / label).write_text(daemon.stdout.readline())
    while (held / label).exists():
        time.sleep(0.05)
elif verb == "ps":
    label = rest[rest.index("--filter") + 1].removeprefix("label=")
    print("".join(path.name for path in held.iterdir() if path.name == label))
elif verb == "rm":
    for name in rest:
        if name != "-f":
            os.kill(int((held / name).read_text()), signal.SIGKILL)
            (held / name).unlink()
elif verb == "stop":
    sys.exit(1)  # it would not stop
"""


def kept(folder: Path) -> dict[str, Any]:
    """What server.json holds."""
    value: dict[str, Any] = json.loads((folder / "server.json").read_text())
    return value


def eventually(what: Callable[[], bool], seconds: float = 60.0) -> bool:
    """True if ``what`` becomes true in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if what():
            return True
        time.sleep(0.02)
    return what()
