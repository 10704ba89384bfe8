"""Who is let into the batch and when, against slots that only count: no model, no time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hf_running import LAUNCHERS, needs_torch

pytestmark = needs_torch
sys.path.insert(0, str(LAUNCHERS))
VOCABULARY = 10
END = 9


class CountingSlots:
    """Stands for `hf_slots.Slots`: a sequence's next token is its newest plus one. Keeps what was called."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.used = 0
        self.calls: list[tuple[str, Any]] = []
        self.fail_at: str | None = None
        self.error: Exception = RuntimeError("the card fell off the bus")

    def prefill(self, prompt: Sequence[int]) -> Any:
        self.used += 1
        self.calls.append(("prefill", list(prompt)))
        return self._logits("prefill", [prompt[-1]])[0]

    def decode(self, tokens: Sequence[int]) -> Any:
        assert len(tokens) == self.used
        self.calls.append(("decode", list(tokens)))
        return self._logits("decode", tokens)

    def drop(self, row: int) -> None:
        assert row < self.used
        self.used -= 1
        self.calls.append(("drop", row))

    def cut(self, used: int) -> None:
        self.used = used

    def _logits(self, call: str, tokens: Sequence[int]) -> Any:
        import torch

        if self.fail_at == call:
            self.fail_at = None
            raise self.error
        logits = torch.zeros(len(tokens), VOCABULARY)
        for row, token in enumerate(tokens):
            logits[row, (token + 1) % VOCABULARY] = 2.0
            logits[row, (token + 2) % VOCABULARY] = 1.0
        return logits


def drive(slots: CountingSlots, prompts: Sequence[tuple[int, int]], **policy: Any) -> list[Any]:
    """Runs requests of (first token, max_tokens) that arrive together; the replies' tokens, or what refused them."""
    from hf_batching import Batching, Policy
    from hf_metrics import Metrics
    from hf_reply import Ask, Refused, Reply

    async def all_tokens(reply: Reply) -> Any:
        found = []
        try:
            while not found or found[-1].finish is None:
                found.append(await reply.next())
        except Refused as error:
            return error
        return [token.id for token in found] + [found[-1].finish]

    async def work() -> list[Any]:
        with ThreadPoolExecutor(1) as thread:
            chosen = {"way": "continuous", "max_waiting": 9, "ends": frozenset([END]), **policy}
            engine = Batching(slots, Policy(**chosen), Metrics({}, None), thread)
            replies = [engine.submit(Ask(prompt=[first], max_tokens=most)) for first, most in prompts]
            loop = asyncio.create_task(engine.run())
            found = await asyncio.gather(*(all_tokens(reply) for reply in replies))
            engine.stop()
            await loop
            return found

    return asyncio.run(work())


def steps(slots: CountingSlots) -> list[int | str]:
    """The order of the work: p for a prefill, the number of rows for a decode step."""
    return ["p" if call == "prefill" else len(what) for call, what in slots.calls if call != "drop"]


def test_continuous_lets_one_prompt_in_between_two_steps() -> None:
    slots = CountingSlots(rows=2)
    replies = drive(slots, [(0, 4), (1, 2), (2, 3)])
    assert replies == [[1, 2, 3, 4, "length"], [2, 3, "length"], [3, 4, 5, "length"]]
    assert steps(slots) == ["p", 1, "p", 2, "p", 2, 1]


def test_static_forms_a_batch_and_runs_it_to_its_last_reply() -> None:
    slots = CountingSlots(rows=2)
    replies = drive(slots, [(0, 4), (1, 2), (2, 3)], way="static")
    assert replies == [[1, 2, 3, 4, "length"], [2, 3, "length"], [3, 4, 5, "length"]]
    assert steps(slots) == ["p", "p", 2, 1, 1, "p", 1, 1]


def test_none_runs_one_request_after_the_other() -> None:
    slots = CountingSlots(rows=1)
    assert drive(slots, [(0, 2), (1, 2)], way="none") == [[1, 2, "length"], [2, 3, "length"]]
    assert steps(slots) == ["p", 1, "p", 1]


def test_the_last_row_takes_the_place_of_one_that_ends() -> None:
    slots = CountingSlots(rows=3)
    replies = drive(slots, [(0, 3), (3, 6), (5, 4)], way="static")
    assert replies == [[1, 2, 3, "length"], [4, 5, 6, 7, 8, 9, "stop"], [6, 7, 8, 9, "stop"]]
    assert [what for call, what in slots.calls if call == "decode"] == [[1, 4, 6], [2, 5, 7], [8, 6], [7], [8]]
    assert slots.used == 0


def test_a_step_that_fails_ends_its_own_replies_and_no_others() -> None:
    slots = CountingSlots(rows=2)
    slots.fail_at = "decode"
    first, second, third = drive(slots, [(0, 4), (1, 4), (2, 3)], way="static")
    assert (first.status, second.status) == (500, 500)
    assert "RuntimeError: the card fell off the bus" in first.message
    assert third == [3, 4, 5, "length"]


def test_a_prefill_that_fails_ends_its_reply_alone_and_gives_the_row_back() -> None:
    slots = CountingSlots(rows=2)
    slots.fail_at = "prefill"
    first, second = drive(slots, [(0, 4), (1, 2)])
    assert first.status == 500
    assert second == [2, 3, "length"]
    assert slots.used == 0


@pytest.mark.parametrize(("call", "lost"), [("prefill", 1), ("decode", 2)])
def test_out_of_memory_is_a_503_to_those_it_struck_and_the_others_are_served(call: str, lost: int) -> None:
    import torch

    slots = CountingSlots(rows=2)
    slots.fail_at, slots.error = call, torch.OutOfMemoryError("Tried to allocate 2.00 GiB.\nA second line")
    *struck, last = drive(slots, [(0, 4), (1, 4), (2, 3)][2 - lost :], way="static")
    assert [error.status for error in struck] == [503] * lost
    assert all(error.message.startswith("Out of memory: Tried to allocate 2.00 GiB. Start") for error in struck)
    assert last == [3, 4, 5, "length"]
    assert slots.used == 0


def test_more_than_may_wait_are_refused() -> None:
    from hf_reply import Refused

    with pytest.raises(Refused, match="3 requests are waiting, and this server lets no more wait"):
        drive(CountingSlots(rows=1), [(0, 1)] * 4, max_waiting=3)


def test_a_loop_that_dies_leaves_no_reply_waiting_and_takes_no_more() -> None:
    from hf_batching import Batching, Policy
    from hf_metrics import Metrics
    from hf_reply import Ask, Refused

    class Broken(CountingSlots):
        def drop(self, row: int) -> None:
            raise IndexError("a mistake of ours")

    async def work() -> None:
        with ThreadPoolExecutor(1) as thread:
            engine = Batching(Broken(rows=1), Policy(way="continuous", max_waiting=9), Metrics({}, None), thread)
            replies = [engine.submit(Ask(prompt=[0], max_tokens=1)) for _ in range(2)]
            with pytest.raises(IndexError):
                await engine.run()
            assert (await replies[0].next()).finish == "length"
            with pytest.raises(Refused, match="stopped before this reply was whole"):
                await replies[1].next()
            with pytest.raises(Refused, match="takes no more requests"):
                engine.submit(Ask(prompt=[0], max_tokens=1))

    asyncio.run(work())


def test_a_reply_that_nobody_waits_for_ends_and_keeps_no_tokens() -> None:
    from hf_reply import Ask, Refused, Reply, Token

    async def work() -> None:
        reply = Reply(Ask(prompt=[0], max_tokens=9))
        reply.cancel()
        reply.put(Token(1, None))
        with pytest.raises(Refused, match="went away"):
            await reply.next()
        assert reply.ended
        assert reply.cancelled
        assert reply.tokens == 1  # it left the model all the same

    asyncio.run(work())


def choose_once(**ask: Any) -> int:
    """The choice from logits that rise with the token id, the last of which ends the text."""
    import torch
    from hf_choose import Chooser, choose
    from hf_reply import Ask

    chooser = Chooser(Ask(prompt=[1], max_tokens=5, **ask), frozenset([END]), torch.Generator().manual_seed(0))
    return choose(torch.arange(float(VOCABULARY))[None], [chooser], [1])[0]


def test_the_end_cannot_be_chosen_before_min_tokens() -> None:
    assert choose_once() == END
    assert choose_once(min_tokens=2) == END - 1
    assert choose_once(min_tokens=1) == END
    assert choose_once(min_tokens=2, ignore_eos=True) == END  # it does not end the text then, so it may come


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 0.01}, {"temperature": 1e-3}])
def test_sampling_that_is_narrowed_to_one_token_is_greedy(narrow: dict[str, Any]) -> None:
    assert choose_once(**{"temperature": 5.0, **narrow}) == END


def test_top_k_and_top_p_leave_what_they_name() -> None:
    import torch
    from hf_choose import Chooser, draw
    from hf_reply import Ask

    def drawn(**ask: Any) -> set[int]:
        chooser = Chooser(Ask(prompt=[1], max_tokens=5, **ask), frozenset(), torch.Generator().manual_seed(0))
        return {draw(torch.log(torch.tensor([0.1, 0.2, 0.3, 0.4])), chooser) for _ in range(300)}

    assert drawn(temperature=1.0) == {0, 1, 2, 3}
    assert drawn(temperature=1.0, top_k=2) == {2, 3}
    assert drawn(temperature=1.0, top_p=0.5) == {2, 3}  # 0.4 alone is less than a half
    assert drawn(temperature=1.0, top_p=0.3) == {3}
