"""Our driver as a client of the benchmark: one worker's loop, in this process.

usage: ours.py PORT STREAMS REQUESTS TOKENS STAMPS [RATE]     RATE: an open loop of so many requests a second

Prints {"cpu_s", "wall_s", "tokens"} like clients.py: CPU from the first request to the last record written. STAMPS:
id, scheduled, send, first token (CLOCK_MONOTONIC, ns), taken from the records, which stand beside it. "rss_mib" is the
peak memory before that.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path

from loadgen.arrival import Arrival
from loadgen.backends import RequestOptions
from loadgen.drive.clock import now_ns
from loadgen.drive.job import Job, Labels, Shape
from loadgen.drive.loop import Loop
from loadgen.drive.prepare import Prepared
from loadgen.drive.worker import peak_mib
from loadgen.record import read_records


def main() -> None:
    port, streams, requests, tokens = map(int, sys.argv[1:5])
    stamps = Path(sys.argv[5])
    rate = int(sys.argv[6]) if len(sys.argv) > 6 else 0
    shape = Shape(concurrency=streams, requests=requests)
    if rate:
        shape = Shape(arrival=Arrival(kind="constant", rate_rps=rate), requests=requests)
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
        shape=shape,
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
    rss_mib = peak_mib()
    counted = 0
    with stamps.open("w") as file:
        for record in read_records([path]):
            if record.status != "ok":
                sys.exit(f"request {record.seq} ended with {record.status}: {record.err}")
            counted += record.out_tok or 0
            name = loop.prepared.request_id(record.session)
            times = (start + round((at or 0) * 1e9) for at in (record.t_sched, record.t_send, record.t_first))
            file.write(" ".join([name, *map(str, times)]) + "\n")
    print(json.dumps({"cpu_s": cpu_s, "wall_s": wall_s, "tokens": counted, "rss_mib": rss_mib}))


main()
