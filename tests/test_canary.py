"""Secrets that are planted where a run can come across them, and looked for in everything that it leaves."""

from __future__ import annotations

import base64
import gzip
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_runner import Done, command, environment, loadgen, write_scenario

KEY = "canary-key-4711-abcdefgh"
TOKEN = "canary-token-0815-ijklmn"
PASSWORD = "canary-password-99-op"
HEADER = "canary-header-5-qrstuvw"
PLANTED = {"MY_KEY": KEY, "HF_TOKEN": TOKEN, "PROXY_WORD": PASSWORD, "EXTRA": HEADER}
FORMS = ("canary", base64.b64encode(f"me:{PASSWORD}".encode()).decode())

ECHO = Path(__file__).with_name("echo_server.py")
RECIPE = f"""
command: ['{{python}}', -S, '{ECHO}', '{{port}}', MODE]
options: {{trust_remote_code: []}}
api_key: ENGINE_API_KEY
ready: {{path: /health, timeout_s: 30}}
stop: {{grace_s: 1}}
"""

BOTH = """
targets:
  launched:
    engine: ./echo.yaml
    model: m
    api_key_env: MY_KEY
    env: {HUB_TOKEN: '${env:HF_TOKEN}', EXTRA_SECRET: '${env:EXTRA}'}
    options: {trust_remote_code: true}
  remote:
    endpoint: http://somewhere.invalid
    proxy: http://me:${env:PROXY_WORD}@127.0.0.1:PORT
    model: m
    api_key_env: MY_KEY
    headers: {x-api-key: '${env:EXTRA}'}
workload: {prompts: natural, output: {exact: 4}, save_text: true}
load: {concurrency: 2, warmup_s: 0, window_s: 0.5}
repeats: 1
comparison: {baseline: launched, scope: instance}
"""


@contextmanager
def echo(mode: str = "") -> Iterator[int]:
    argv = [sys.executable, "-S", str(ECHO), "0", mode]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


def place(folder: Path, mode: str = "") -> None:
    (folder / "echo.yaml").write_text(RECIPE.replace("MODE", f"'{mode}'"))


def found_in(text: bytes) -> list[str]:
    return [form for form in FORMS if form.encode() in text]


def betrayed(folder: Path) -> dict[str, list[str]]:
    """Files below a folder that hold something that was planted, compressed ones included."""
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    opened = {path: gzip.decompress(data) if path.suffix == ".gz" else data for path, data in files.items()}
    return {str(path.relative_to(folder)): found for path, data in opened.items() if (found := found_in(data))}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("planted")
    place(folder)
    with pytest.MonkeyPatch.context() as patch, echo() as port:
        for name, value in PLANTED.items():
            patch.setenv(name, value)
        old = os.umask(0o022)
        try:
            done = loadgen(folder, "run", str(write_scenario(folder, BOTH.replace("PORT", str(port)))))
        finally:
            os.umask(old)
        done.out += "".join(
            loadgen(folder, *words).out
            for words in (("report", "last"), ("report", "last", "--format", "json"), ("gc", "--dry-run"), ("history",))
        )
    assert "Traceback" not in done.err
    return done


def test_the_servers_did_say_the_secrets(run: Done) -> None:
    lines = [json.loads(line) for path in run.run.rglob("requests-*.jsonl") for line in path.read_text().splitlines()]
    statuses = {(line["target"], line["status"]) for line in lines}
    assert {
        (target, status) for target in ("launched", "remote") for status in ("http_error", "error_event", "ok")
    } <= (statuses)
    assert any("authorization" in (line["err"] or "").lower() for line in lines)
    logs = "".join(path.read_text() for path in run.run.glob("servers/*/server.log"))
    assert "authorization: Bearer [secret]" in logs
    assert "'ENGINE_API_KEY': '[secret]'" in logs


def test_no_file_and_no_line_on_the_terminal_holds_a_secret(run: Done) -> None:
    assert betrayed(run.store) == {}
    assert found_in(run.out.encode()) == []
    assert found_in(run.err.encode()) == []
    assert "proxy: http://me:${env:PROXY_WORD}@127.0.0.1" in (run.run / "scenario.yaml").read_text()


def test_folders_are_for_the_owner_and_so_is_every_file(run: Done) -> None:
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [run.store, *run.store.rglob("*")]}
    assert {str(path): oct(mode) for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}
    assert any(path.name == "loadgen.db" for path in modes)


def test_code_that_comes_with_a_model_is_said_and_stored(run: Done) -> None:
    sentence = "trust_remote_code is on for launched: code that comes with m runs on this machine."
    assert sentence in run.err
    assert sentence in run.out
    (server,) = (json.loads(path.read_text()) for path in run.run.glob("servers/*/server.json"))
    assert sentence in server["notes"]
    assert run.description()["scenario"]["targets"]["launched"]["options"]["trust_remote_code"] is True


def refused(folder: Path, *words: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    env = {**environment(folder / "store"), **PLANTED, **environ}
    return subprocess.run(command(*words), cwd=folder, env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("target", ["launched", "remote"])
def test_a_server_that_refuses_a_key_and_quotes_it_is_not_quoted(tmp_path: Path, target: str) -> None:
    place(tmp_path, "refuse")
    with echo("refuse") as port:
        text = BOTH.replace("PORT", str(port)).partition("comparison")[0]
        begin, end = text.index("  launched:"), text.index("  remote:")
        other = text.index("workload:")
        text = text[:end] + text[other:] if target == "launched" else text[:begin] + text[end:]
        done = refused(tmp_path, "run", str(write_scenario(tmp_path, text)), environ={})
    assert done.returncode == 6, done.stderr
    assert "401: who is this? " in done.stderr
    assert "Bearer [secret]" in done.stderr
    assert found_in((done.stdout + done.stderr).encode()) == []
    assert betrayed(tmp_path / "store") == {}


@pytest.mark.parametrize(
    "line",
    [
        f"proxy: 'http://me:{PASSWORD}@127.0.0.1:1'",
        f"env: {{HTTPS_PROXY: 'http://me:{PASSWORD}@127.0.0.1:1'}}",
        f"args: [--proxy, 'http://me:{PASSWORD}@127.0.0.1:1']",
    ],
)
def test_a_password_in_an_address_is_refused_before_it_is_copied_anywhere(tmp_path: Path, line: str) -> None:
    kind = "endpoint: 'http://h:1'" if line.startswith("proxy") else "engine: vllm"
    text = f"targets: {{a: {{{kind}, model: m, {line}}}}}\nworkload: {{prompts: natural}}\nload: {{concurrency: 1}}\n"
    done = refused(tmp_path, "run", str(write_scenario(tmp_path, text)), environ={})
    assert done.returncode == 2
    assert (
        "holds a password written out; put it into the environment and write http://me:${env:NAME}@HOST" in done.stderr
    )
    assert found_in(done.stderr.encode()) == []
    assert not (tmp_path / "store").exists()


def test_terminal_escapes_of_a_server_never_reach_the_terminal(tmp_path: Path) -> None:
    with echo("escape") as port:
        text = (
            f"targets: {{a: {{endpoint: 'http://127.0.0.1:{port}', model: m}}}}\n"
            "workload: {prompts: natural, output: {exact: 4}}\n"
            "load: {concurrency: 1, warmup_s: 0, window_s: 0.2}\nrepeats: 1\n"
        )
        done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, text)))
    assert "cannot" in done.err
    assert [c for c in done.err + done.out if not c.isprintable() and c != "\n"] == []
