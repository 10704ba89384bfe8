"""Nights as they are: twelve of them against the real Hugging Face server, and the shipped line under a real cron.

Every decode step of the server is made 20 ms long, and its model is a very small one, so that the machine's noise does
not decide. In the eleventh night it is 21.7 ms, of which the scenario knows nothing, as of a new version of an
engine.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from cli_runner import command, environment
from cpu_engines import CHECKOUT
from hf_running import made_model, needs_torch

pytestmark = pytest.mark.engines

USUAL_MS, SLOW_MS = "20", "21.7"
DELAYS = [USUAL_MS] * 10 + [SLOW_MS] + [USUAL_MS]
NIGHT_S = 900
TRIES = 3
SCENARIO = """schema: loadgen/v1
name: nights
targets:
  hf:
    engine: hf
    model: {model}
    options: {{dtype: float32, threads: 1, max_batch_size: 1, step_delay_ms: "${{env:STEP_DELAY_MS}}"}}
workload: {{prompts: natural, output: {{exact: 24}}}}
load: {{concurrency: 2, warmup_s: 1, window_s: 3}}
repeats: 2
nightly: {{primary: [output_tok_s, p50 tpot], webhook_env: NIGHTS_WEBHOOK}}
"""


class Heard(BaseHTTPRequestHandler):
    """A webhook that keeps what it is told."""

    told: list[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.told.append(json.loads(body)["text"])
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Not into the tests' output."""


@contextmanager
def webhook() -> Iterator[tuple[str, list[str]]]:
    """A URL, and the texts that were posted there."""
    told: list[str] = []
    with HTTPServer(("127.0.0.1", 0), type("Told", (Heard,), {"told": told})) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", told
        finally:
            server.shutdown()
            thread.join()


def loadgen(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = environment(folder / "store") | more
    return subprocess.run(
        command(*words), cwd=folder, env=env, capture_output=True, text=True, timeout=NIGHT_S, check=False
    )


def one_night(folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A night; once more, where this machine was too busy for one: such a night is INVALID and counts for nothing."""
    for _ in range(TRIES):
        night = loadgen(folder, "nightly", "nights.yaml", "--wait", "10m", **more)
        print(f"== a night of {more['STEP_DELAY_MS']} ms: exit code {night.returncode}\n{night.stdout}\n{night.stderr}")
        if night.returncode != 5:
            break
    return night


@needs_torch
def test_twelve_nights_learn_find_the_slower_one_and_see_it_recover(tmp_path: Path) -> None:
    (tmp_path / "nights.yaml").write_text(SCENARIO.format(model=made_model(tmp_path)))
    codes, lines = [], []
    with webhook() as (url, told):
        for delay in DELAYS:
            night = one_night(tmp_path, STEP_DELAY_MS=delay, NIGHTS_WEBHOOK=url)
            codes.append(night.returncode)
            lines.append(night.stdout)
            if delay == SLOW_MS:
                blame = loadgen(tmp_path, "blame", "output_tok_s").stdout
                print(blame)
    assert codes == [0] * 10 + [4] + [0]
    rows = list(csv.DictReader(io.StringIO(loadgen(tmp_path, "history", "--csv").stdout)))
    for measure in ("output_tok_s", "p50 tpot_s"):
        states = [row["state"] for row in rows if row["measure"] == measure and row["state"] != "invalid"]
        assert states == ["learning"] * 8 + ["ok"] * 2 + ["regression"] + ["ok"], measure
    (found,) = re.findall(r"REGRESSION nights hf all output_tok_s.*?confirmed 2/2", " ".join(lines[10].split()))
    assert re.search(r"[0-9]+-night range .* expected .* p=", found)
    assert "step_delay_ms 20" in blame
    kinds = ("(weekly)", "REGRESSION nights hf all output_tok_s", "RECOVERED")
    assert [[kind in text for text in told].count(True) for kind in kinds] == [1, 1, 1], told
    print(*told, loadgen(tmp_path, "history").stdout, loadgen(tmp_path, "history", "--series", "output_tok_s").stdout)
    site = tmp_path / "store" / "site"
    assert "2 ok" in (site / "index.html").read_text()
    pages = [path.read_text() for path in site.glob("series/*.html")]
    assert sum('class="mark regression"' in page for page in pages) >= 2
    if kept := os.environ.get("LOADGEN_KEEP_NIGHTS"):  # for a look at the pages
        shutil.copytree(tmp_path / "store", kept)


# cron -----------------------------------------------------------------------------------------------------------------


def cannot_cron() -> str | None:
    """Why no cron daemon can be run here with a /etc/cron.d of its own; None if one can."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return "a cron daemon of its own needs root and unshare"
    if shutil.which("cron") is None:
        return "there is no cron; scripts/test-engines installs Debian's where it may"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        return "no mount namespace can be made here"
    return None


def zone_in_which_it_is(hour: int, minute: int, when: float) -> str:
    """A time zone, as TZ has them, in which a moment is this time of the day."""
    utc = time.gmtime(when)
    ahead = (hour * 60 + minute - utc.tm_hour * 60 - utc.tm_min + 720) % 1440 - 720
    sign = "-" if ahead >= 0 else "+"  # POSIX: what has to be added to get UTC
    return f"NIGHT{sign}{abs(ahead) // 60}:{abs(ahead) % 60:02d}"


@contextmanager
def cron(folder: Path, tab: str, zone: str) -> Iterator[None]:
    """A real cron daemon that sees this file in /etc/cron.d and no other of the machine's."""
    for name in ("cron.d", "spool", "run"):
        (folder / name).mkdir(parents=True)
    (folder / "crontab").write_text("")
    (folder / "cron.d" / "loadgen").write_text(tab)
    places = {
        "cron.d": "/etc/cron.d",
        "spool": "/var/spool/cron/crontabs",
        "run": "/var/run",
        "crontab": "/etc/crontab",
    }
    binds = "; ".join(f"[ ! -e {to} ] || mount --bind {folder}/{name} {to}" for name, to in places.items())
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", f"{binds}; exec cron -f"]
    with subprocess.Popen(argv, env={"PATH": os.environ["PATH"] + ":/usr/sbin", "TZ": zone}) as daemon:
        try:
            yield
        finally:
            daemon.terminate()


@pytest.mark.skipif(cannot_cron() is not None, reason=str(cannot_cron()))
def test_the_shipped_line_makes_a_night_under_a_real_cron_daemon(tmp_path: Path) -> None:
    """As it is shipped, schedule and all, but for the places and the user: in a time zone in which it is soon 02:30."""
    program = Path(sys.executable).with_name("loadgen")
    etc, store = tmp_path / "etc", tmp_path / "srv"
    etc.mkdir()
    store.mkdir(mode=0o700)
    null = [sys.executable, "-m", "loadgen.null_server", "--ttft-ms", "5", "--gap-ms", "2"]
    with subprocess.Popen(null, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        (etc / "nightly.yaml").write_text(
            "schema: loadgen/v1\nname: by_cron\n"
            f"targets: {{null: {{endpoint: 'http://127.0.0.1:{port}', model: '${{env:THE_MODEL}}'}}}}\n"
            "workload: {prompts: natural, output: {exact: 8}}\n"
            "load: {concurrency: 1, warmup_s: 0.5, window_s: 1}\nrepeats: 1\n"
        )
        (etc / "nightly.env").write_text("THE_MODEL=from-the-file\n")
        tab = (CHECKOUT / "scripts" / "nightly.cron").read_text()
        for shipped, mine in (
            ("/opt/loadgen/.venv/bin/loadgen", program), ("/etc/loadgen", etc), ("/srv/loadgen", store),
            ("* * * loadgen ", "* * * root "),
        ):  # fmt: skip
            assert shipped in tab
            tab = tab.replace(shipped, str(mine))
        soon = time.time() + 5
        with cron(tmp_path / "cron", tab, zone_in_which_it_is(2, 30, soon - soon % 60 + 60)):
            events, log = store / "events.jsonl", store / "nightly.log"
            end = time.monotonic() + 180
            while not events.exists() and time.monotonic() < end:
                time.sleep(0.5)
                if log.exists() and "loadgen: " in log.read_text():
                    break  # a sentence says why there is no night
        server.kill()
    assert events.exists(), log.read_text() if log.exists() else "cron did not start it"
    night = json.loads(events.read_text().splitlines()[0])
    assert night["event"] == "night"
    assert night["scenario"] == "by_cron"
    run = json.loads(next(store.glob("runs/*/*/run.json")).read_text())
    assert run["status"] == "complete"
    assert "from-the-file" not in json.dumps(run["scenario"])  # it came from the environment, and stays there
