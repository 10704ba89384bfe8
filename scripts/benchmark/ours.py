"""Our driver as a client of the benchmark: one worker's loop, in this process.

usage: ours.py PORT STREAMS REQUESTS TOKENS STAMPS

Prints {"cpu_s", "wall_s", "tokens"} like clients.py: CPU from the first request to the last record written. STAMPS:
id, send, first token (CLOCK_MONOTONIC, ns), taken from the records, which stand beside it.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path

from loadgen.backends import RequestOptions
from loadgen.drive.clock import now_ns
from loadgen.drive.job import Job, Labels, Shape
from loadgen.drive.loop import Loop
from loadgen.drive.prepare import Prepared
from loadgen.record import read_records


def main() -> None:
    port, streams, requests, tokens = map(int, sys.argv[1:5])
    stamps = Path(sys.argv[5])
    path = stamps.with_suffix(".jsonl")
    job = Job(
        labels=Labels(run="r", cell="c", target="t", rep=1, attempt=1),
        worker=0,
        workers=1,
        endpoint=f"http://127.0.0.1:{port}",
        backend="openai_chat",
        options=RequestOptions(model="null"),
        headers={},
        workload="natural",
        settings={"tags": ["chat"]},
        context={"seed": 1, "ask_tok": tokens, "exact": True},
        shape=Shape(concurrency=streams, requests=requests),
        seed=1,
        out=str(path),
    )
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    loop = Loop(Prepared(job), None, lambda lines: os.write(fd, lines), lambda _: None)
    loop.warm(streams)
    gc.collect()
    gc.freeze()
    gc.disable()
    cpu, wall = time.process_time(), time.monotonic()
    start = now_ns() + 1_000_000
    loop.run(start)
    cpu_s, wall_s = time.process_time() - cpu, time.monotonic() - wall
    os.close(fd)
    records = list(read_records([path]))
    with stamps.open("w") as file:
        for record in records:
            name = f"{record.run}-{record.cell}-{record.target}-{record.rep}-{record.attempt}-{record.seq}"
            sent, first = (start + round((at or 0) * 1e9) for at in (record.t_send, record.t_first))
            file.write(f"{name} {sent} {first}\n")
    counted = sum(record.out_tok or 0 for record in records if record.status == "ok")
    print(json.dumps({"cpu_s": cpu_s, "wall_s": wall_s, "tokens": counted}))


main()
