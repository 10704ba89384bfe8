"""A store with one run of many cells and requests that nobody measured, for trying reports at their largest.

In: a folder, the numbers of cells, records and tokens. Out: a run as a real one lies there: the request lines by the
record's own writer, each repeat's summary by `summarise`. Two targets, of which one is faster where batches are small.
One request in 200 fails, and one cell has a doubt. Same arguments, same numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from loadgen import host
from loadgen.limits.served import serving
from loadgen.plan import Step, make_plan
from loadgen.record import Record, to_line
from loadgen.repeat import Result
from loadgen.scenario import Cell, expand, load, public_dict
from loadgen.store import create_run, requests_path, write_bytes, write_json
from loadgen.summarise import summarise
from loadgen.summary import Context, Doubt, Window

MODELS = Path(__file__).resolve().parents[1] / "scenarios" / "models"
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
WINDOW = Window(1.0, 31.0)
SCENARIO = """\
schema: loadgen/v1
name: made_up
description: Made up by scripts/make-big-run; nobody measured this.
targets:
  dense: {{endpoint: "http://127.0.0.1:9001", model: dense, config: "{models}/qwen1.5-32b.json", gpu: h200, gpus: 1}}
  moe: {{endpoint: "http://127.0.0.1:9002", model: moe, config: "{models}/qwen2-57b-a14b.json", gpu: h200, gpus: 1}}
workload: {{prompts: synthetic, input_tokens: 64, output: {{exact: {tokens}}}}}
load: {{warmup_s: 1, window_s: 30}}
matrix:
  load.concurrency: [{sizes}]
  workload.input_tokens: [{lengths}]
repeats: {repeats}
comparison: {{baseline: dense, metric: p50 tpot, scope: instance}}
objectives: [p50 ttft < 300 ms, error_rate < 1 %]
"""


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="scripts/make-big-run", description="Make up a large run.")
    parser.add_argument("store", type=Path, help="folder of the store")
    parser.add_argument("--cells", type=int, default=500, help="a multiple of 10")
    parser.add_argument("--records", type=int, default=1_000_000, help="requests of the whole run")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each reply")
    parser.add_argument("--repeats", type=int, default=3)
    print(make(parser.parse_args()))


def make(args: argparse.Namespace) -> Path:
    """The folder of the run."""
    args.store.mkdir(parents=True, exist_ok=True)
    lengths = [64 * (1 + i) for i in range(args.cells // len(SIZES))]
    words = {"tokens": args.tokens, "repeats": args.repeats, "models": MODELS}
    listed = {"sizes": ", ".join(map(str, SIZES)), "lengths": ", ".join(map(str, lengths))}
    path = args.store / "made_up.yaml"
    path.write_text(SCENARIO.format(**words, **listed))
    scenario = load(path).scenario
    cells = expand(scenario)
    plan = make_plan(scenario, cells)
    run = create_run(args.store, scenario.name)
    write_json(run.folder / "plan.json", plan)
    known = {
        "run": run.id, "status": "complete", "started": "2026-11-21T00:00:00Z", "ended": "2026-11-21T23:00:00Z",
        "scenario": public_dict(scenario), "seed": scenario.seed, "versions": host.versions(), "servers": {},
        "machine": host.fingerprint(), "served": serving(cells, args.store), "profile": None, "profile_reason": None,
        "failures": [],
    }  # fmt: skip
    run.write("run.json", known)
    by_id, each = {cell.id: cell for cell in cells}, max(1, args.records // len(plan.steps))
    for number, step in enumerate(plan.steps):
        folder = run.repeat(step.cell, step.target, step.rep).new_attempt()[1]
        _repeat(folder, by_id[step.cell], step, (number, each, args.tokens), last=step.cell == cells[-1].id)
    return run.folder


def _repeat(folder: Path, cell: Cell, step: Step, sizes: tuple[int, int, int], last: bool) -> None:
    found = list(_records(cell, step, sizes))
    write_bytes(requests_path(folder, 0), b"".join(map(to_line, found)))
    doubts = (Doubt("warm_cache", "A doubt that was made up."),) if last and step.target == "moe" else ()
    context = Context(exact_tok=sizes[2], concurrency=cell.scenario.load.concurrency, doubts=doubts)
    result = Result(
        cell=step.cell, target=step.target, rep=step.rep, attempt=1, block=step.block, seed=step.seed, server=None,
        started="2026-11-21T00:00:00Z", summary=summarise(found, WINDOW, context), workers=(),
    )  # fmt: skip
    write_json(folder / "summary.json", result)


def _records(cell: Cell, step: Step, sizes: tuple[int, int, int]) -> Iterator[Record]:
    """``sizes`` are the number of the repeat, its requests, and their tokens."""
    number, count, tokens = sizes
    random = np.random.default_rng(number)
    load = cell.scenario.load.concurrency or 1
    slow = (1 + load / 64) * (1.0 if step.target == "dense" else 0.7 + 0.1 * np.log2(load)) * random.normal(1, 0.01)
    sends = np.sort(random.uniform(0.05, 30.0, count))
    firsts = random.lognormal(np.log(40_000 * slow), 0.3, count)
    gaps = random.lognormal(np.log(20_000 * slow), 0.2, (count, tokens))
    gaps[:, 0] = firsts
    stamps = np.cumsum(gaps, axis=1).astype(np.int64).tolist()
    for seq, (send, chunks) in enumerate(zip(sends.tolist(), stamps, strict=True)):
        yield _record(step, seq, send, chunks)


def _record(step: Step, seq: int, send: float, chunks: list[int]) -> Record:
    first, last = chunks[0] / 1e6, chunks[-1] / 1e6
    failed = seq % 200 == 199
    return Record(
        run="made_up", cell=step.cell, target=step.target, rep=step.rep, endpoint="http://127.0.0.1:9001", seq=seq,
        session=seq, source="synthetic", phase="warmup" if send < WINDOW.w0 else "measure", t_sched=send - 1e-4,
        t_send=send, t_first=send + first, t_last=send + last, t_end=send + last + 1e-4, ttft_s=first,
        tpot_s=(last - first) / (len(chunks) - 1), e2e_s=last, chunk_us=chunks, ask_tok=len(chunks), in_tok=64,
        out_tok=None if failed else len(chunks), tok_source="usage", clock="kernel", lag_us_max=50,
        status="truncated" if failed else "ok", http=200, finish=None if failed else "length", prompt_sha=f"{seq:016x}",
        out_sha=f"{seq:016x}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
