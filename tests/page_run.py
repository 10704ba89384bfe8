"""A run with its request lines and ticks, made up, for the page: names and answers are those of an attacker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loadgen.assemble import RunReport, assemble
from loadgen.drive.tally import Tick
from loadgen.limits.served import serving
from loadgen.plan import make_plan
from loadgen.record import Record, to_line
from loadgen.repeat import Result
from loadgen.scenario import expand, load, public_dict
from loadgen.store import append_line, create_run, requests_path, write_json
from loadgen.summarise import summarise
from loadgen.summary import Context, Window

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><!--{{7*7}}\u2028\u202e"
SCENARIO = (
    "schema: loadgen/v1\nname: made_up\n"
    "targets: {dense: {endpoint: 'http://h:1', model: d}, moe: {endpoint: 'http://h:2', model: m}}\n"
    "workload: {prompts: natural, output: {exact: 12}}\nload: {warmup_s: 1, window_s: 30}\n"
    "matrix: {concurrency: [1, 4, 16]}\nrepeats: 3\ncomparison: {baseline: dense, scope: instance}\n"
    "objectives: [p50 ttft < 60 ms, error_rate < 1 %]\n"
)
TOKENS = 12
WINDOW = Window(1, 31)


def records(target: str, concurrency: int, rep: int) -> Iterator[Record]:
    """A closed loop: each reply has 12 tokens; "moe" decodes faster at 1 and slower at 16. The last one fails."""
    speed = 1.0 + rep / 200 if target == "dense" else {1: 1.4, 4: 1.1, 16: 0.8}[concurrency] + rep / 100
    step_us = 10_000 * (1 + concurrency / 16) / speed
    seq, t = 0, [0.2 + 0.01 * slot for slot in range(concurrency)]
    while min(t) < 31.5:
        slot = t.index(min(t))
        record = _record(seq, t[slot], 40_000 + 1500 * ((seq * 7) % 11), step_us)
        t[slot] = (record.t_end or 0.0) + 0.002
        yield record
        seq += 1
    yield _failed(seq)


def _record(seq: int, sent: float, ttft_us: int, step_us: float) -> Record:
    chunks = [ttft_us + round(i * step_us) + (60_000 if seq % 9 == 0 and i > 5 else 0) for i in range(TOKENS)]
    end = sent + chunks[-1] / 1e6
    return Record(
        **_labels(seq, sent), t_first=sent + ttft_us / 1e6, t_last=end, t_end=end + 0.001, ttft_s=ttft_us / 1e6,
        tpot_s=(chunks[-1] - chunks[0]) / 1e6 / (TOKENS - 1), e2e_s=chunks[-1] / 1e6, chunk_us=chunks, out_tok=TOKENS,
        in_tok=20, tok_source="usage", lag_us_max=10, status="ok", http=200, finish="length", text=HOSTILE,
    )  # fmt: skip


def _failed(seq: int) -> Record:
    return Record(**_labels(seq, 20.0), t_end=20.5, status="http_error", http=500, err=f"500: {HOSTILE}")


def _labels(seq: int, sent: float) -> dict[str, Any]:
    return {
        "seq": seq, "session": seq, "phase": "warmup" if sent < 1 else "measure", "t_sched": sent - 0.0001,
        "t_send": sent, "ask_tok": TOKENS, "clock": "kernel", "prompt_sha": str(seq), "cached_tok": 0,
    }  # fmt: skip


def made(folder: Path, scenario_text: str = SCENARIO) -> RunReport:
    """The run as it lies in a store, read back."""
    path = folder / "made_up.yaml"
    path.write_text(scenario_text)
    scenario = load(path).scenario
    cells = expand(scenario)
    run = create_run(folder / "store", "made_up")
    write_json(run.folder / "plan.json", make_plan(scenario, cells))
    run.write("run.json", _described(run.id, public_dict(scenario)) | {"served": serving(cells, folder)})
    for cell in cells:
        for target in scenario.targets:
            for rep in range(1, scenario.repeats + 1):
                _repeat(run.repeat(cell.id, target, rep).new_attempt()[1], (cell.id, target, rep))
    return assemble(run)


def _described(run: str, scenario: dict[str, Any]) -> dict[str, Any]:
    scenario["name"] = scenario["description"] = f"made_up {HOSTILE}"
    scenario["targets"]["dense"]["model"] = HOSTILE
    machine = {"cpu": f"a processor {HOSTILE}", "cores": 2, "memory_gb": 1, "gpus": [{"name": f"GPU {HOSTILE}"}]}
    server = {"engine": HOSTILE, "startup_s": 1.0, "facts": {"model": HOSTILE}, "notes": [HOSTILE]}
    return {
        "run": run, "status": "complete", "started": "2026-11-21T00:00:00Z", "ended": "2026-11-21T00:30:00Z",
        "scenario": scenario, "seed": 1, "versions": {"loadgen": "0", "engine": HOSTILE}, "machine": machine,
        "profile": None, "profile_reason": HOSTILE, "failures": [f"c, t, repeat 1: {HOSTILE}"],
        "servers": {"dense-1": server},
    }  # fmt: skip


def _repeat(folder: Path, place: tuple[str, str, int]) -> None:
    cell, target, rep = place
    concurrency = int(cell.partition("=")[2])
    found = list(records(target, concurrency, rep))
    requests_path(folder, 0).write_bytes(b"".join(to_line(record) for record in found))
    for second in range(1, 33):
        ended = [record for record in found if record.t_end and second - 1 <= record.t_end < second]
        tick = Tick(
            worker=0, t=float(second), sent=len(ended), ended={"ok": len(ended)}, tokens=TOKENS * len(ended),
            in_flight=concurrency, late_us_max=100 + second, cpu=0.1,
        )  # fmt: skip
        append_line(folder / "ticks.jsonl", tick)
    context = Context(exact_tok=TOKENS, concurrency=concurrency, worker_cpu=(0.1,))
    result = Result(
        cell=cell, target=target, rep=rep, attempt=1, block=(rep + 1) // 2, seed=1, server=None,
        started="2026-11-21T00:00:00Z", summary=summarise(found, WINDOW, context), workers=(),
    )  # fmt: skip
    write_json(folder / "summary.json", result)
