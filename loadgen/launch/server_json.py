"""server.json: what a server is and which processes are its own, kept so that a later run finds what this one left.

``state`` goes from starting to ready and then to stopped, to left (something of it could not be ended) or to kept (it
was left up on purpose); failed is a program that could not be started.

It is written before the process starts (with the cookie, by which the process can be found), again as soon as its pid
is known, and again at every change. Secrets are in it by name only.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from loadgen.launch.command import Command
from loadgen.launch.processes import boot_id, this_process
from loadgen.redact import is_secret, redact

SCHEMA = "loadgen-server/v1"
FILE = "server.json"


def fresh(command: Command, environ: Mapping[str, str], cookie: str, secrets: tuple[str, ...]) -> dict[str, Any]:
    """The record of a server that is about to start."""
    container = command.container
    return {
        "schema": SCHEMA,
        "state": "starting",
        "target": command.target,
        "engine": command.engine,
        "model": command.model,
        "run": command.run_id,
        "argv": [redact(word, secrets) for word in command.argv],
        "env": {name: "[secret]" if is_secret(name) else redact(value, secrets) for name, value in command.env.items()},
        "env_by_name": dict(command.secret_env),
        "env_inherited": sorted(set(environ) - set(command.env) - set(command.secret_env)),
        "files": sorted(command.files),
        "backend": command.backend,
        "served_name": command.served_name,
        "base_url": command.base_url,
        "port": command.port,
        "cpus": list(command.cpus),
        "devices": list(command.devices),
        "notes": list(command.notes),
        "container": None if container is None else msgspec.structs.asdict(container),
        "stop": [[redact(word, secrets) for word in words] for words in command.stop],
        "grace_s": command.grace_s,
        "boot_id": boot_id(),
        "owner": this_process().to_json(),
        "cookie": cookie,
        **dict.fromkeys(("pid", "pgid", "start_ticks", "create_time", "startup_s", "exit_code", "ended", "proof")),
        "processes": [],
        "started": now(),
        "facts": {},
    }


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Replace the file as a whole: a reader sees the old record or the new one."""
    part = path.with_suffix(".json.part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def now() -> str:
    """The time as it stands in our files: UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
