"""Processes as they are, peaks that begin anew, and what reports make of what the machines said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_runner import loadgen, write_scenario
from fakes import FakeServer
from made_runs import made_run, scenario_of

from loadgen.assemble import RunReport, assemble
from loadgen.launch.processes import ProcessId, identify, this_process
from loadgen.record import Record
from loadgen.repeat import Result
from loadgen.reports import machines, markdown, text
from loadgen.store import Run, write_json
from loadgen.telemetry.measured import GpuUse, Telemetry
from loadgen.telemetry.process import Processes
from loadgen.telemetry.prometheus import Seen
from loadgen.telemetry.sampler import Machine, Sampler

BURN = "while True: pass"
PARENT = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {BURN!r}]); time.sleep(600)"


@contextmanager
def started(code: str) -> Iterator[ProcessId]:
    """A Python process that runs this, ended with all that it started."""
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        found = identify(process.pid)
        assert found is not None
        yield found
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def eventually(what: Any, within_s: float = 60) -> None:
    end = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < end
        time.sleep(0.2)  # looking costs the client CPU, too


# Processes ------------------------------------------------------------------------------------------------------------


def test_what_a_server_has_started_counts_as_the_server_and_not_as_the_client() -> None:
    with started(PARENT) as parent:
        processes = Processes(server=[parent])

        def burnt() -> bool:
            server, client = processes.read()
            both = server is not None and client is not None and len(processes.server) == 2
            return both and server.cpu_s > max(0.1, client.cpu_s)

        eventually(burnt)
        assert parent.pid in processes.server
        server, client = processes.read()
        assert server is not None
        assert client is not None
        assert server.rss_bytes > 2 * 2**20, "two interpreters"
        assert client.cpu_s < server.cpu_s
        assert processes.server < processes.ours


def test_another_server_of_the_run_is_neither_the_server_nor_the_client() -> None:
    with started("import time; time.sleep(600)") as one, started("import time; time.sleep(600)") as other:
        processes = Processes(server=[one], others=[other])
        processes.read()
        assert processes.server == {one.pid}
        assert {one.pid, other.pid} <= processes.ours


def test_a_server_that_is_gone_is_not_known_and_its_number_stands_for_nobody() -> None:
    with started("import time; time.sleep(600)") as one:
        pass
    server, client = Processes(server=[one]).read()
    assert server is None
    assert client is not None
    again = ProcessId(this_process().pid, 1, 0.0)  # our number, another start
    assert Processes(server=[again]).read()[0] is None


# Peaks ----------------------------------------------------------------------------------------------------------------


@contextmanager
def engine(resets: bool) -> Iterator[str]:
    """An engine whose peak is 9e9 bytes until it is told to begin anew, then 5e9."""
    state = {"peak": 9_000_000_000}

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(200, f"hf:memory_peak_bytes {state['peak']}\nhf:memory_reserved_bytes 6e9\nother 1\n")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            state["peak"] = 5_000_000_000 if resets else state["peak"]
            self.answer(200 if resets else 404, "{}")

        def answer(self, status: int, body: str) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("resets", "peak", "reserved"), [(True, 5e9, 6e9), (False, None, None)])
def test_a_peak_is_of_this_repeat_or_not_known(resets: bool, peak: float | None, reserved: float | None) -> None:
    names = {"memory_peak": "hf:memory_peak_bytes", "memory_reserved": "hf:memory_reserved_bytes"}
    with engine(resets) as url, Sampler([url], names, machine=Machine(reset_peak=f"{url}/reset")) as sampler:
        pass
    found = sampler.telemetry(0, time.monotonic_ns())
    assert (found.torch_peak_bytes, found.torch_reserved_bytes) == (peak, reserved)
    assert "memory_peak" not in sampler.now


def test_the_clients_ttft_is_of_the_requests_that_the_servers_is_of() -> None:
    with engine(True) as url, Sampler([url], {"running": "other"}) as sampler:
        began = time.monotonic_ns()
        time.sleep(0.01)
    first, last = sampler._between(0, time.monotonic_ns())[0][0], sampler._between(0, time.monotonic_ns())[-1][0]

    def record(at_ns: float, ttft_s: float | None) -> Record:
        at = (at_ns - began) / 1e9
        return Record(seq=0, session=0, phase="measure", status="ok", t_sched=0.0, t_first=at, ttft_s=ttft_s)

    middle = (first + last) / 2
    records = [record(first - 1e6, 9.0), record(middle, 0.1), record(middle, 0.3), record(last + 1e6, 9.0)]
    assert sampler.client_ttft_s(records, began, 0, time.monotonic_ns()) == pytest.approx(0.2)
    assert sampler.client_ttft_s(records[:1], began, 0, time.monotonic_ns()) is None


# Reports --------------------------------------------------------------------------------------------------------------


def used(peak_gb: float, **more: Any) -> Telemetry:
    """What a repeat on one GPU came to."""
    gpu = GpuUse(uuid="GPU-a", index=0, ours=True, utilisation=0.93, sm_mhz=1980.0, held_down={}, **more)
    return Telemetry(
        source="nvml", looks=30, gpus=(gpu,), gpu_peak_bytes=peak_gb * 1e9, gpu_memory="process", watts=510.0,
        torch_peak_bytes=15.2e9, server_rss_peak_bytes=2.5e9, server_cores=1.25, client_ttft_s=0.0525,
    )  # fmt: skip


def told(run: Run, target: str, telemetry: Telemetry, **more: Any) -> None:
    """Puts this into every repeat of a target."""
    for path in run.folder.glob(f"cells/*/{target}/rep-*/attempt-1/summary.json"):
        result = msgspec.json.decode(path.read_bytes(), type=Result)
        write_json(path, msgspec.structs.replace(result, telemetry=telemetry, **more))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    scenario = scenario_of(tmp_path, ["a", "b"], "repeats: 3\ncomparison: {scope: instance}\n")
    return made_run(tmp_path / "store", scenario, {"a": [100.0, 101, 99], "b": [150.0, 151, 149]})


def shown(report: RunReport) -> dict[str, list[str]]:
    """By heading, the first row of a table under its columns' names."""
    return {
        f"{one.heading}: {name}": value
        for one in machines.tables(report, more=True)
        for name, value in zip(*one.rows(one.columns)[:2], strict=True)
    }


def test_where_nothing_is_known_there_is_no_table(run: Run) -> None:
    assert machines.tables(assemble(run)) == []
    assert "Memory" not in text.render(assemble(run))


def test_memory_energy_and_both_ttfts_stand_in_the_report(run: Run) -> None:
    seen = Seen(ttft_s=0.05, queue_s=0.01)
    told(run, "a", used(131.2), energy_j=None, seen=seen)
    described = run.read("run.json")
    run.write("run.json", {**described, "idle_watts": {"GPU-a": 75.0}})
    report = assemble(run)
    found = shown(report)
    assert found["Memory, energy, cores: GPU GB"] == "131.2"
    assert found["Memory, energy, cores: torch GB"] == "15.20"
    assert found["Memory, energy, cores: idle W"] == "75.00"
    assert found["Memory, energy, cores: GPU %"] == "93.00"
    assert "Memory, energy, cores: J" not in found, "a window under 30 s has none"
    assert found[f"{machines.TTFT}: between ms"] == "2.500"
    page = markdown.render(report)
    assert "## Memory, energy, cores" in page
    assert "No joules: energy is told for windows of 30 s and more alone" in page
    for line in text.render(report, width=80).splitlines():
        assert len(line) <= 80 or str(run.folder) in line


def test_both_ttfts_are_means_over_the_repeats_that_have_both(run: Run) -> None:
    told(run, "a", used(131.2), seen=Seen(ttft_s=0.05))
    for path in run.folder.glob("cells/*/a/rep-003/attempt-1/summary.json"):
        result = msgspec.json.decode(path.read_bytes(), type=Result)
        alone = msgspec.structs.replace(result.telemetry, client_ttft_s=None)
        write_json(path, msgspec.structs.replace(result, telemetry=alone, seen=Seen(ttft_s=0.2)))
    found = shown(assemble(run))
    told_of = [found[f"{machines.TTFT}: {name} ms"] for name in ("server", "client", "between")]
    assert told_of == ["50.00", "52.50", "2.500"]


def test_what_an_engine_set_aside_is_told_in_bytes_and_tokens(run: Run) -> None:
    plan = run.read("plan.json")
    for step in plan["steps"]:
        step["server"] = f"{step['target']}-1"
    write_json(run.folder / "plan.json", plan)
    facts = {"weights_gib": 14.25, "kv_gib": 100, "kv_tokens": 1_747_552, "version": "0.33.0"}
    run.write("run.json", {**run.read("run.json"), "servers": {"a-1": {"target": "a", "facts": facts}}})
    found = shown(assemble(run))
    assert found["Memory, energy, cores: weights GB"] == "15.30"
    assert found["Memory, energy, cores: KV GB"] == "107.4"
    assert found["Memory, energy, cores: KV tok"] == "1,747,552"


def test_what_each_rank_says_of_its_gpu_is_told_of_all_of_them(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, ["a"], "repeats: 1\n")
    two = {"config": None, "name": "m", "gpus": 2, "gpu": "h200"}
    cell = {"concurrency": 4, "prompts": "natural prompts", "random": False, "targets": {"a": 0}}
    served = {"v": 1, "configs": [], "targets": [two], "cells": {"all": cell}}
    facts = {"weights_gib": 14.25, "kv_gib": 100, "kv_tokens": 1_747_552}
    servers = {"a-1": {"target": "a", "facts": facts}}
    run = made_run(tmp_path / "store", scenario, {"a": [100.0]}, {"served": served, "servers": servers})
    plan = run.read("plan.json")
    write_json(run.folder / "plan.json", {**plan, "steps": [{**step, "server": "a-1"} for step in plan["steps"]]})
    found = shown(assemble(run))
    assert found["Memory, energy, cores: weights GB"] == "30.60"
    assert found["Memory, energy, cores: KV tok"] == "1,747,552"


def test_a_side_that_was_slowed_down_forbids_a_verdict(run: Run) -> None:
    told(run, "a", used(20))
    told(run, "b", msgspec.structs.replace(used(20), gpus=(GpuUse(uuid="GPU-a", ours=True, held_down={"hot": 0.5}),)))
    (cell,) = assemble(run).comparisons[0].cells
    assert "throttled is no for a and hot for b" in str(cell.primary)
    told(run, "b", used(20))
    (cell,) = assemble(run).comparisons[0].cells
    assert "throttled" not in str(cell)


# A run ----------------------------------------------------------------------------------------------------------------


def test_a_run_keeps_what_it_saw_and_of_an_endpoint_nothing_but_its_page(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=5, gap_ms=2) as server:
        scenario = (
            f"targets: {{a: {{endpoint: '{server.url}', engine: vllm, model: fake}}}}\n"
            "workload: {prompts: natural, output: {exact: 4}}\nload: {concurrency: 1, warmup_s: 0.2, window_s: 1.5}\n"
            "repeats: 1\n"
        )
        done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, scenario)))
        assert done.good, done.err
    (result,) = done.results()
    found = result.telemetry
    assert found.client_rss_peak_bytes is not None
    assert found.host_peak_bytes is not None
    assert found.host_peak_bytes > found.client_rss_peak_bytes > 2**20
    assert (found.server_cores, found.server_rss_peak_bytes, found.torch_peak_bytes, result.energy_j) == (None,) * 4
    assert (found.source, found.gpus) == (None, ())
    (attempt,) = done.attempts()
    words = [json.loads(line)["server"] for line in (attempt / "ticks.jsonl").read_text().splitlines()]
    assert {"running", "client_bytes", "host_bytes"} <= set(words[-1])
    assert "server_bytes" not in words[-1]
