"""What this machine allows a client: files, ports, cores, C. Each judgement is a pure function of what was read."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from loadgen.doctor.finding import Finding, State
from loadgen.drive import fast

RESERVED_FILES = 64
"""What a worker has open beside its streams: its output, its pipes, Python's own."""
FEW_STREAMS = 4096
FEW_PORTS = 10_000
LINGER_S = 60
"""A closed connection keeps its port for this long (TIME_WAIT on Linux)."""


def examine() -> list[Finding]:
    """All of them, as far as this system tells."""
    found = [files(*resource.getrlimit(resource.RLIMIT_NOFILE))]
    if ports := _read("/proc/sys/net/ipv4/ip_local_port_range"):
        first, last = ports.split()
        found.append(port_range(int(first), int(last)))
    governors = {_read(str(path)) for path in Path("/sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_governor")}
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found.append(cores(usable, quota(_read("/sys/fs/cgroup/cpu.max")), governors - {""}, os.getloadavg()[0]))
    found.append(client(fast.native is not None))
    return found


def files(soft: int, hard: int) -> Finding:
    """The limit of open files: each stream takes one."""
    hard_text, streams = (str(hard), hard - RESERVED_FILES)
    if hard == resource.RLIM_INFINITY:
        hard_text, streams = "unlimited", 1 << 20
    text = f"soft {_count(soft)}, hard {hard_text}: {streams} streams for each worker, which takes the hard limit"
    advice = ""
    if streams < FEW_STREAMS:
        advice = "raise it: `nofile` in /etc/security/limits.conf, LimitNOFILE of a service, docker run --ulimit."
    elif soft != resource.RLIM_INFINITY and soft < FEW_STREAMS:
        text += f"; a server that is launched here starts with the soft one, enough for some {soft - RESERVED_FILES}"
    state: State = "warning" if advice else "ok"
    return Finding(name="open files", state=state, text=text, advice=advice, facts={"soft": soft, "hard": hard})


def port_range(first: int, last: int) -> Finding:
    """Ports for outgoing connections: each connection to one address takes one."""
    count = last - first + 1
    text = (
        f"{first} to {last}: {count} connections to one address at once, half of them quickly (docs/scale.md), and "
        f"{count // LINGER_S} new ones a second where a server closes each after its reply"
    )
    few = count < FEW_PORTS
    advice = "widen it: sysctl net.ipv4.ip_local_port_range='10240 65535'." if few else ""
    facts = {"first": first, "last": last}
    return Finding(name="ports", state="warning" if few else "ok", text=text, advice=advice, facts=facts)


def cores(usable: int, allowed: float | None, governors: set[str], load: float) -> Finding:
    """Cores that this process may use, the share that its control group grants (None: all), how they are clocked, and
    how busy they are."""
    parts = [f"{usable} cores"]
    advice = []
    if allowed is not None and allowed < usable:
        parts.append(f"of which this control group gets {allowed:g}")
    slow = governors - {"performance"}
    parts.append(f"governor {', '.join(sorted(governors))}" if governors else "no governor to be seen")
    if slow:
        advice.append("clocks that move are times that move: cpupower frequency-set -g performance.")
    parts.append(f"load {load:.2f}")
    if load > usable / 2:
        advice.append("other programs use this machine now; see them with `top`, and measure when they are done.")
    facts = {"cores": usable, "quota": allowed, "governors": sorted(governors), "load": load}
    state: State = "warning" if advice else "ok"
    return Finding(name="CPU", state=state, text=", ".join(parts), advice=" ".join(advice), facts=facts)


def client(compiled: bool) -> Finding:
    """The form of our own driver: what it can carry on one core depends on it, its times do not."""
    text = "what is done for every token is done in C"
    if not compiled:
        text = (
            "all in Python: right, at up to twice the CPU a token. Where a C compiler and Python's headers are "
            "(Debian: gcc, python3-dev), installing loadgen anew builds the C; LOADGEN_PURE=1 leaves it aside"
        )
    return Finding(name="client", state="ok", text=text, facts={"compiled": compiled})


def quota(cpu_max: str) -> float | None:
    """Cores in the control group's ``cpu.max`` (``200000 100000`` is 2.0), None without a limit."""
    words = cpu_max.split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdigit() else None


def _count(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)


def _read(path: str) -> str:
    """A file of the kernel; '' where it is not there."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
