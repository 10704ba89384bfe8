"""Holds a client's times against the null server's own, request by request. Imports nothing of loadgen.

usage: join.py TRUTH STAMPS        STAMPS: lines of "id scheduled send first-token" (CLOCK_MONOTONIC, ns)
       join.py TRUTH RUN_FOLDER    a run of loadgen: its records, joined by the x-request-id that they were
                                   sent with (a UUID of their labels)

TRUTH is the null server's log: "id asked first last tokens late", its own clock readings (CLOCK_MONOTONIC, ns) when it
had read the request, when it wrote the first and the last token, and how late it was itself. Prints one JSON object;
all times in ms:

    requests             joined
    true, reported       time to first token: the server's first write less its reading of the request; the client's
                         first token less its send (mean, p50, p99)
    error                reported less true, request by request (p50, p99, max of absolute values)
    lag                  the client's first-token stamp less the server's write (p50, p99, max)
    late                 the client's send less the time that its schedule wanted (p50, p99, max)
    server_late          of the server's writes (p99)
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

Stamp = tuple[str, float, float, float]


def stamps_of(path: Path) -> Iterator[Stamp]:
    """(id, scheduled, send, first token) of each request, ns."""
    if not path.is_dir():
        for line in path.read_text().splitlines():
            name, *times = line.split()
            scheduled, sent, first = map(int, times)
            yield name, scheduled, sent, first
        return
    for summary in path.glob("cells/*/*/*/*/summary.json"):
        start = json.loads(summary.read_text())["start_ns"]
        for records in summary.parent.glob("requests-*.jsonl"):
            for line in records.read_text().splitlines():
                one = json.loads(line)
                if one["phase"] == "measure" and one["status"] == "ok":
                    labels = [one["run"], one["cell"], one["target"], one["rep"], one["attempt"], one["session"]]
                    times = (start + one[key] * 1e9 for key in ("t_sched", "t_send", "t_first"))
                    name = uuid.uuid5(uuid.NAMESPACE_URL, "-".join(map(str, labels)))
                    yield (str(name), *times)  # type: ignore[misc]


def join(truth: Path, stamps: Path) -> dict[str, float | int | dict[str, float]]:
    """The figures of this program's docstring."""
    true = {}
    for line in truth.read_text().splitlines():
        name, asked, first, _, _, late = line.rsplit(" ", 5)
        true[name] = (int(asked), int(first), int(late))
    actual, reported, lags, lates, server = [], [], [], [], []
    for name, scheduled, sent, token in stamps_of(stamps):
        asked, written, late = true[name]
        actual.append((written - asked) / 1e6)
        reported.append((token - sent) / 1e6)
        lags.append((token - written) / 1e6)
        lates.append((sent - scheduled) / 1e6)
        server.append(late / 1e6)
    errors = [abs(ours - theirs) for ours, theirs in zip(reported, actual, strict=True)]
    return {
        "requests": len(actual),
        "true": spread(actual),
        "reported": spread(reported),
        "error": spread(errors),
        "lag": spread(lags),
        "late": spread(lates),
        "server_late": spread(server),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "mean": sum(ordered) / len(ordered),
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)],
        "max": ordered[-1],
    }


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(json.dumps(join(Path(sys.argv[1]), Path(sys.argv[2]))))
