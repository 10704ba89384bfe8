"""Can times be trusted here: the kernel's clock, and its stamps on what a socket receives (see drive/clock.py)."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from loadgen.doctor.finding import Finding
from loadgen.drive.clock import ANCILLARY, ask_for_stamps, realtime_ns_of, stamp_of

GOOD = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter")
"""Read without a system call, in some 20 ns."""
WAIT_S = 0.02
TRIES = 3


def examine() -> list[Finding]:
    """The clock's source, where the system names it, and the stamps."""
    try:
        name = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()
    except OSError:
        name = ""
    return [*([source(name)] if name else []), stamps(min(_delays(), default=None))]


def source(name: str) -> Finding:
    """The source of the kernel's clock."""
    if name in GOOD:
        return Finding(name="clock", state="ok", text=f"source {name}", facts={"source": name})
    return Finding(
        name="clock",
        state="warning",
        text=f"source {name}, which is slow to read: a busy client measures less load than it could",
        advice="boot with clocksource=tsc if the machine has a stable one.",
        facts={"source": name},
    )


def stamps(delay_ms: float | None) -> Finding:
    """Whether the kernel stamped what came when it came. ``delay_ms`` is the time from the send on loopback to the
    stamp, where the reader slept through `WAIT_S`; None if there was no stamp."""
    facts = {"delay_ms": delay_ms}
    if delay_ms is None:
        text = "the kernel gives none here (gVisor, macOS): arrivals are stamped when this program reads them"
    elif delay_ms > WAIT_S * 500:
        text = f"the kernel's are {delay_ms:.1f} ms late: they say when data was read, not when it came"
    else:
        return Finding(
            name="receive stamps",
            state="ok",
            text=f"by the kernel, {delay_ms:.3f} ms after a send on loopback",
            facts=facts,
        )
    advice = "keep workers under half of a core, or measure from a Linux machine; records say `clock: user`."
    return Finding(name="receive stamps", state="warning", text=text, advice=advice, facts=facts)


def _delays() -> list[float]:
    """Milliseconds from send to stamp, of some tries; empty without stamps."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(2.0)
        with socket.create_connection(listener.getsockname(), timeout=2.0) as reader:
            writer, _ = listener.accept()
            with writer:
                if not ask_for_stamps(reader):
                    return []
                return [delay for delay in (_delay(writer, reader) for _ in range(TRIES)) if delay is not None]


def _delay(writer: socket.socket, reader: socket.socket) -> float | None:
    before = time.time_ns()
    writer.sendall(b"x")
    time.sleep(WAIT_S)
    _, ancillary, _, _ = reader.recvmsg(1, ANCILLARY)
    stamp = realtime_ns_of(stamp_of(ancillary))
    return (stamp - before) / 1e6 if stamp else None
