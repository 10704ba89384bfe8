"""One repeat of one worker: what is due is sent, what has come is read, and the rest waits until there is time.

Where a time is read, and what it means:

* A request is due at an absolute time. A timer wakes the loop a little early and it spins through the rest;
  ``t_send`` is read right before the bytes go to the kernel (`traffic.py`). Its body was built earlier (`prepare.py`).
* A reply's bytes are stamped by the kernel when they reach this host (`clock.py`). A busy loop therefore makes no
  latency look longer, except where it lets pieces pile up in the kernel: merged pieces keep only the newest stamp.
* Pieces are understood, and records written, when little is ready to be read or sent (`understand.py`).
* In a closed loop a slot is free from the arrival of its reply's last byte, not from when this program noticed, so
  the client's own delay shows up as the lateness of the next send instead of vanishing.

One thread, one poll, and nothing on the way that can wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from loadgen.drive.clock import RealtimeOffset, Timer, cpu_s, now_ns
from loadgen.drive.conversation import Conversations
from loadgen.drive.nap import Nap
from loadgen.drive.outcome import CountTokens, Exchange, to_record
from loadgen.drive.overdue import Rounds, overdue
from loadgen.drive.prepare import Prepared
from loadgen.drive.schedule import PAUSE_NS, Schedule, make_schedule, part_of, quota_of
from loadgen.drive.tally import Tally, Tick
from loadgen.drive.traffic import Traffic
from loadgen.drive.understand import Backlog
from loadgen.record import Phase, to_line

NEVER = 1 << 62
_CHECK_NS = 100_000_000
_SENDS = 64
"""Most sends between two looks at the sockets: a client that is behind its schedule must not stop reading."""
_CALM = 8
"""Fewer sockets than so many at a look, and there is time to understand something: looking again costs more."""
_BROKEN = 20
"""After more bad replies than so many in a row, each of which looked good until it was understood, slots pause."""
_SPIN_NS = 60_000
"""The timer fires this much early, and the loop polls without waiting for the rest: waking takes about as long."""


class Loop:
    """Runs one job. ``write`` takes finished lines of records, ``report`` takes a `Tick` a second.

    ``carry`` is the seam behind which drivers change: it moves requests and replies (`Traffic`, our own sockets; or
    `clients.ClientTraffic`, a library's client).
    """

    def __init__(
        self,
        prepared: Prepared,
        count_tokens: CountTokens | None,
        write: Callable[[bytes], Any],
        report: Callable[[Tick], Any],
        carry: Callable[[Prepared, Backlog, Callable[[Exchange, int], None]], Any] = Traffic,
    ) -> None:
        self.job = prepared.job
        self.shape = prepared.job.shape
        self.prepared = prepared
        self.count_tokens = count_tokens
        self.write = write
        self.report = report
        self.offset = RealtimeOffset()
        self.backlog = Backlog(
            self.offset, self._record, lambda *found: self.traffic.broken(*found), lambda *end: self.traffic.over(*end)
        )
        self.traffic = carry(prepared, self.backlog, self._ended)
        self.rounds = Rounds(self.traffic.active)
        self.timer = Timer()
        if self.timer.fd >= 0:
            self.traffic.also_watch(self.timer.fd, self.timer.clear)
        self.lines: list[bytes] = []
        self.tally = Tally(self.job.worker, 0)
        self.talks: Conversations | None = None
        self.stopping = False
        self.measured = 0
        self.cpu_marks: tuple[int, float, int, float] | None = None

    def warm(self, connections: int) -> None:
        """Makes connections and request bodies ready ahead of the start. Raises OSError if none can be had."""
        self.traffic.warm(connections)
        while self.prepared.look_ahead(min(connections + 1, 256)):
            pass

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Calls ``ready()`` while it runs when ``fd`` can be read."""
        self.traffic.also_watch(fd, ready)

    def unwatch(self, fd: int) -> None:
        """Watches ``fd`` no longer."""
        self.traffic.forget(fd)

    def run(self, start: int) -> None:
        """Runs the schedule from ``start`` (monotonic ns) until everything has ended and is written."""
        self._begin(start)
        try:
            now, due = self._send_due()
            while not (self.stopping and not self.traffic.active and not self.backlog):
                ready = self._look(now, due)
                now, due = self._send_due()  # a slot that this look set free sends before its reply is taken apart
                if self.backlog:
                    self._understand(ready)
                    now = now_ns()
                    due = self._due(now)
            if self.quota is not None:
                self._mark_cpu(now_ns())  # a window of so many requests lasts until their last reply
            self._flush()
            self.report(self._tick())
        except BaseException:
            self._flush()  # whatever went wrong, what has ended is not lost
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Gives every descriptor back."""
        self.timer.close()
        self.traffic.close()

    def stop(self, at_once: bool) -> None:
        """Sends nothing more; with ``at_once`` what is in flight is cancelled, else it has ``drain_s`` to end."""
        self._begin_drain(now_ns())
        if at_once:
            self.drain_until = self.next_check = 0

    def measure_from_now(self, at: int) -> None:
        """The warm-up is over at ``at`` (monotonic ns): for a warm-up whose end the parent decides."""
        self.measure_from = at
        if self.shape.window_s is not None:
            self.stop_at = at + int(self.shape.window_s * 1e9)

    # -- time -----------------------------------------------------------------------------------------------------

    def _begin(self, start: int) -> None:
        self.start = start
        self.schedule: Schedule = make_schedule(self.job, start)
        if self.prepared.converses:
            self.schedule = self.talks = Conversations(self.schedule, self.prepared, self.backlog)
        self.tally = Tally(self.job.worker, start)
        self.measure_from = self.stop_at = NEVER
        if self.shape.warmup_s is not None:
            self.measure_from_now(start + int(self.shape.warmup_s * 1e9))
        self.quota = quota_of(self.job)
        self.cap = part_of(self.shape.max_in_flight, self.job)
        self.pace_ns = int(1e9 * self.job.workers / self.shape.max_rps) if self.shape.max_rps else 0
        self.not_before = self.next_check = self.bad_in_a_row = 0
        self.nap = Nap()
        self.drain_until = NEVER
        self.ahead = max(8, min(part_of(self.shape.concurrency, self.job) or 64, 256))

    def _send_due(self) -> tuple[int, int | None]:
        """Sends what is due, up to `_SENDS`; the time then, and when the next one is due (see `_due`)."""
        now = now_ns()
        due, sends = self._due(now), _SENDS
        while due is not None and due <= now and sends:
            self._send_one(now)
            now = now_ns()
            due = self._due(now)
            sends -= 1
        return now, due

    def _look(self, now: int, due: int | None) -> int:
        """Reads what has come, and waits for it until something is due; how many sockets were ready."""
        wait = self._wait(now, due)
        if self.backlog or (wait > 0 and self._look_ahead(now)):
            ready: int = self.traffic.step(0.0)
        else:
            if self.nap.s and wait > self.nap.s:
                time.sleep(self.nap.s)
            ready = self.traffic.step(wait)
        self.nap.reads += ready
        if now >= self.next_check:  # after the look at the sockets: where we were late, what has come counts
            self._check(now)
        return ready

    def _understand(self, ready: int) -> None:
        if ready < _CALM:
            self.backlog.slice()
        while self.backlog.full and self.backlog:
            self.backlog.slice()

    def _due(self, now: int) -> int | None:
        """When something is to be sent next (or sending to be stopped); None when that depends on a reply."""
        if self.stopping:
            return None
        due = self.schedule.peek()
        if self.quota is not None and self.measured >= self.quota:
            due = NEVER
        elif due is None:
            if self.schedule.goes_on:
                return None
            due = NEVER
        if due < self.stop_at and due < NEVER:
            return max(due, self.not_before)
        if now < self.stop_at < NEVER and self.quota is None and self.schedule.goes_on:
            return self.stop_at
        self._begin_drain(now if self.quota is not None or self.stop_at == NEVER else max(now, self.stop_at))
        return None

    def _wait(self, now: int, due: int | None) -> float:
        """Seconds to wait in the poll, at most until the next check; 0 in the last stretch before a send."""
        until_check = max(self.next_check - now, 0)
        if due is None:
            return until_check / 1e9
        if (ahead := due - _SPIN_NS - now) <= 0:
            return 0.0
        if self.timer.fd >= 0:
            self.timer.arm(due - _SPIN_NS)
        else:
            ahead = max(ahead - 2_000_000, 0)  # without a timer: the poll's time-out has whole milliseconds
        return min(ahead, until_check) / 1e9

    def _check(self, now: int) -> None:
        """Ten times a second: the end of the window, timeouts, the clock, the tick, the end of the drain."""
        self.next_check = now + _CHECK_NS
        self.nap.check(self.traffic.active)
        if now >= self.stop_at:
            self._begin_drain(now)
        self.traffic.tidy(now)
        for exchange in self.rounds.part(now > self.drain_until or self.backlog.full):
            if (failed := overdue(exchange, now, self.shape, self.drain_until)) is not None:
                self.traffic.fail(exchange, *failed)
            if exchange.pieces and (self.backlog.full or now - exchange.heard_at > _CHECK_NS):
                self.backlog.add(exchange)
        if now >= self.tally.due:
            self.offset.sample()
            self._flush()
            self.report(self._tick())

    def _tick(self) -> Tick:
        self.tally.loop_ns, self.traffic.loop_ns = self.traffic.loop_ns, 0
        return self.tally.tick(len(self.traffic.active), self.backlog.pieces)

    def _look_ahead(self, now: int) -> bool:
        """Builds one request ahead of its time, if there is one to build."""
        return (self.talks is not None and self.talks.look_ahead(now)) or self.prepared.look_ahead(self.ahead)

    def _begin_drain(self, at: int) -> None:
        """Sends nothing more. What is in flight has until ``drain_s`` after ``at``, the end of the window."""
        if not self.stopping:
            self.stopping = True
            if self.talks is not None:
                self.talks.stop()
            self.drain_until = at + int(self.shape.drain_s * 1e9)
            self._mark_cpu(now_ns())

    # -- requests -------------------------------------------------------------------------------------------------

    def _send_one(self, now: int) -> None:
        send = self.schedule.take()
        if self.talks is None:
            turns, data = self.prepared.request(send.session)
            prompt = turns[0]
        elif (turn := self.talks.request(send)) is not None:
            prompt, data = turn
        else:
            return
        phase = self._phase(now)
        if phase == "warmup" and self.talks is None:
            prompt, data = self.prepared.for_warmup(send, prompt, data)
        exchange = Exchange(send, prompt, phase)
        if self.cap is not None and len(self.traffic.active) >= self.cap:
            exchange.never("dropped", f"load.max_in_flight = {self.shape.max_in_flight} requests were in flight")
            self.tally.dropped += 1
            self.backlog.add(exchange)
            return
        self.not_before = now + self.pace_ns
        self.traffic.dispatch(exchange, data, now)
        self.tally.count_sent(now - send.due)

    def _phase(self, now: int) -> Phase:
        if now < self.measure_from:
            return "warmup"
        self.measured += 1
        if self.cpu_marks is None:
            self._mark_cpu(now)
        return self.job.phase

    def _ended(self, exchange: Exchange, at: int) -> None:
        failed = exchange.failed is not None or exchange.reply is None or exchange.reply.head.status != 200
        if failed or self.bad_in_a_row > _BROKEN:  # a closed loop would hammer a server that refuses at once
            at = max(at, exchange.t_due + PAUSE_NS)
        if self.talks is None:
            self.schedule.ended(exchange.send.slot, at)
        else:
            self.talks.answered(exchange, at, failed)

    def _record(self, exchange: Exchange) -> None:
        record = to_record(exchange, self.job, self.start, self.count_tokens)
        self.tally.count_record(record)
        if record.t_send is not None:  # what was never sent says nothing of the server
            self.bad_in_a_row = 0 if record.status == "ok" else self.bad_in_a_row + 1
        if self.talks is not None:
            self.talks.recorded(exchange, record)
        if record.ttft_s is not None:
            self.nap.learn(record.ttft_s)
        self.lines.append(to_line(record))
        if len(self.lines) >= 32 or not self.backlog:
            self._flush()

    def _flush(self) -> None:
        if self.lines:
            self.write(b"".join(self.lines))
            self.lines.clear()

    def _mark_cpu(self, now: int) -> None:
        """Remembers time and CPU at the first measured send and the last moment of the window."""
        first = self.cpu_marks[:2] if self.cpu_marks else (now, cpu_s())
        self.cpu_marks = (*first, now, cpu_s())
