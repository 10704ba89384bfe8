"""Conversations: a later turn is sent when the reply before it has ended and its think time is over.

A closed or an open loop says when conversations begin; their later turns come from the replies. In: those starts, and
replies that have ended. Out: `Send` after `Send`, as from any schedule, and the bytes of each request.

* A turn is due ``think_s`` after the last byte of the reply before it reached this host. What it costs to understand
  that reply and to build the next request is done in the think time if there is any, else it is lateness and shows.
* In a closed loop a slot holds a whole conversation; in an open loop arrivals begin conversations.
* A turn that fails ends its conversation. Each turn that will therefore never be sent leaves a record of status
  ``unsent``, due when the failure ended. What the end of the run cuts off leaves none, as in any load.
"""

from __future__ import annotations

import contextlib
import heapq

from loadgen.drive.outcome import Exchange
from loadgen.drive.prepare import Prepared
from loadgen.drive.schedule import PAUSE_NS, Schedule, Send
from loadgen.drive.tally import Conversed
from loadgen.drive.understand import Backlog
from loadgen.errors import UsageError
from loadgen.record import Phase, Prompt, Record

_AHEAD_NS = 1_000_000_000
"""Requests are built at most this long before they are due: histories are long, and those who think are many."""


class _Talk:
    """A conversation that goes on: its turns as the source has them, how many were asked, and the replies so far.

    ``unread`` is an exchange that has ended and is not understood yet, ``built`` the next request once it is there;
    ``held``: the last reply that ended has not freed the slot, since another turn is to follow; ``phase`` was its own.
    """

    __slots__ = ("asked", "built", "held", "phase", "replies", "turns", "unread")

    def __init__(self, turns: tuple[Prompt, ...]) -> None:
        self.turns = turns
        self.replies: list[str] = []
        self.unread: Exchange | None = None
        self.built: tuple[Prompt, bytes] | None = None
        self.asked = 1
        self.held = False
        self.phase: Phase = "measure"


class Conversations:
    """The schedule of one worker's conversations; ``starts`` is that of their first turns."""

    def __init__(self, starts: Schedule, prepared: Prepared, backlog: Backlog) -> None:
        self._starts = starts
        self._prepared = prepared
        self._backlog = backlog
        self._talks: dict[int, _Talk] = {}
        self._later: list[tuple[int, int, int, int]] = []
        self._unbuilt: list[tuple[int, int]] = []
        self._stopping = False
        self._seq = prepared.job.worker
        self._begun = self._whole = self._broken = 0

    # -- the schedule ---------------------------------------------------------------------------------------------

    @property
    def goes_on(self) -> bool:
        """True if a reply may bring a send when there is none now."""
        return self._starts.goes_on or bool(self._talks)

    @property
    def counts(self) -> Conversed:
        """How many conversations were begun, came to their end, and were broken off."""
        return Conversed(begun=self._begun, whole=self._whole, broken=self._broken)

    def peek(self) -> int | None:
        """When the next turn is due (ns), None while there is none."""
        first = self._starts.peek()
        later = self._first_later()
        if later is None or first is None:
            return first if later is None else later
        return min(first, later)

    def take(self) -> Send:
        """The next turn."""
        first, later = self._starts.peek(), self._first_later()
        if later is None or (first is not None and first < later):
            return self._numbered(self._starts.take())
        due, session, turn, slot = heapq.heappop(self._later)
        return self._numbered(Send(due, session, slot, turn))

    def ended(self, slot: int, at: int) -> None:
        """The conversation of a slot has ended at ``at`` (ns)."""
        self._starts.ended(slot, at)

    def stop(self) -> None:
        """Nothing more is sent: from now on conversations are cut, not broken off."""
        self._stopping = True

    def _first_later(self) -> int | None:
        while self._later and self._later[0][1] not in self._talks:  # broken off since
            heapq.heappop(self._later)
        return self._later[0][0] if self._later else None

    def _numbered(self, send: Send) -> Send:
        """Requests are numbered as sessions are: worker i of N has those whose number modulo N is i."""
        self._seq += self._prepared.job.workers
        return send._replace(seq=self._seq - self._prepared.job.workers)

    # -- requests -------------------------------------------------------------------------------------------------

    def request(self, send: Send) -> tuple[Prompt, bytes] | None:
        """The prompt of a turn that was taken and the bytes of its request; None if, now that the reply before it is
        understood, there is nothing to go on from."""
        if send.turn == 0:
            turns, data = self._prepared.request(send.session)
            self._talks[send.session] = _Talk(turns)
            self._begun += 1
            return turns[0], data
        talk = self._talks[send.session]
        if talk.unread is not None:
            self._backlog.finish(talk.unread)
            if send.session not in self._talks:
                return None
        try:
            built = talk.built or self._prepared.turn(send.session, send.turn, talk.replies)
        except UsageError as error:  # a template took all other turns, and refuses what was replied to this one
            self._starts.ended(send.slot, send.due + PAUSE_NS)
            self._break_off(Send(send.due, send.session, -1, send.turn - 1), talk, str(error))
            return None
        talk.asked, talk.built = talk.asked + 1, None
        return built

    def look_ahead(self, now: int) -> bool:
        """Builds the next request of a conversation whose think time ends soon. True if it did."""
        while self._unbuilt and self._unbuilt[0][0] < now + _AHEAD_NS:
            _, session = heapq.heappop(self._unbuilt)
            talk = self._talks.get(session)
            if talk is not None and len(talk.replies) == talk.asked and not self._stopping:
                with contextlib.suppress(UsageError):  # it will be told when the turn is due
                    talk.built = self._prepared.turn(session, talk.asked, talk.replies)
                return True
        return False

    # -- replies --------------------------------------------------------------------------------------------------

    def answered(self, exchange: Exchange, at: int, failed: bool) -> None:
        """A reply has ended at ``at`` (ns); ``failed``: it is already known to be none."""
        send = exchange.send
        talk = self._talks[send.session]
        talk.held = not failed and send.turn + 1 < len(talk.turns)
        if not talk.held:
            self._starts.ended(send.slot, at)
            return
        due = at + int(talk.turns[send.turn + 1].think_s * 1e9)
        talk.unread = exchange
        heapq.heappush(self._later, (due, send.session, send.turn + 1, send.slot))
        heapq.heappush(self._unbuilt, (due, send.session))

    def recorded(self, exchange: Exchange, record: Record) -> None:
        """A reply was understood: it goes into the history, or it ends the conversation."""
        send = exchange.send
        talk = self._talks.get(send.session)
        if talk is None:  # a turn that was never sent
            return
        talk.unread, talk.phase = None, exchange.phase
        last = send.turn + 1 == len(talk.turns)
        if record.status == "ok" and not last:
            assert exchange.reply is not None
            talk.replies.append(exchange.reply.said.text())
            return
        if record.status == "ok" or self._stopping:
            del self._talks[send.session]
            self._whole += record.status == "ok"
            return
        at = exchange.t_end or send.due
        if talk.held:
            self._starts.ended(send.slot, max(at, exchange.t_due + PAUSE_NS))
        why = f"turn {send.turn + 1} of this conversation failed ({record.status})"
        self._break_off(send._replace(due=at), talk, why)

    def _break_off(self, last: Send, talk: _Talk, why: str) -> None:
        """Ends a conversation after its turn ``last``; each later one leaves a record that it was never sent."""
        del self._talks[last.session]
        self._broken += 1
        for turn in range(last.turn + 1, len(talk.turns)):
            send = self._numbered(Send(last.due, last.session, -1, turn))
            unsent = Exchange(send, talk.turns[turn], talk.phase)
            unsent.never("unsent", why)
            self._backlog.add(unsent)
