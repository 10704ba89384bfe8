"""A server that stands, for whoever wants to use it: its address, a request to try, how to load it, how to end it.

In: its `Command`. Out: text of lines ``word: value``, which programs can read as well.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from loadgen import backends
from loadgen.backends import RequestOptions
from loadgen.launch import Command, LaunchSpec


def render(command: Command, spec: LaunchSpec, pid: int, log: Path) -> str:
    """What ``loadgen launch`` prints once the server is ready; ``pid`` is our own."""
    url, name = command.base_url, command.served_name
    engine = str(spec.folder / spec.engine) if "/" in spec.engine else spec.engine
    target = {"endpoint": url, "engine": engine, "model": name}
    target |= {"backend": spec.backend} if spec.backend else {}
    target |= {"api_key_env": spec.api_key_env} if spec.api_key_env else {}
    words = ", ".join(f"{word}: {json.dumps(value)}" for word, value in target.items())
    lines = [
        f"endpoint: {url}",
        f"model: {name}",
        f"log: {log}",
        f"try: {_curl(command)}",
        f"load: loadgen run SCENARIO --endpoint {url} --model {shlex.quote(name)}",
        f"target: {{ {words} }}",
        f"stop: Ctrl-C, or kill {pid}",
    ]
    return "\n".join(lines) + "\n"


def _curl(command: Command) -> str:
    backend = backends.load(command.backend)
    options = RequestOptions(model=command.served_name, stream=False, fields=dict(command.request))
    body = backend.body(backends.smallest_prompt(backend), options)
    words = ["curl", "-s", command.base_url + backend.PATH, "-H", "content-type: application/json"]
    line = shlex.join([*words, "-d", json.dumps(body, ensure_ascii=False)])
    key = next(iter(command.secret_env.values()), None)
    return f'{line} -H "authorization: Bearer ${key}"' if key else line
