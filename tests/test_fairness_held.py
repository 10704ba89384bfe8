"""Two sides held against each other before they are compared: what is refused, doubted and noted."""

from __future__ import annotations

import pytest
from made_runs import A, B, summary

from loadgen.comparing.compare import compare
from loadgen.comparing.comparison import CellPairs, Comparison, Settings, Sides
from loadgen.fair.fairness import Side, held, note, same_replies, with_note
from loadgen.fair.fingerprint import Fingerprint, Probe
from loadgen.statistics import Verdict


def one_cell(*found: str, cached: Sides | None = None, declared: tuple[str, ...] = ("model",)) -> Comparison:
    facts = [
        {"target": name, **dict(text.split("=") for text in words.split())}
        for name, words in zip("ab", found, strict=True)
    ]
    pairs = CellPairs(
        cell="all", axes={}, baseline="a", candidate="b", cached=cached or Sides(),
        baseline_repeats=[summary(x) for x in A], candidate_repeats=[summary(x) for x in B],
    )  # fmt: skip
    pairs = held(pairs, Side(facts[0]), Side(facts[1]), declared)
    return with_note(compare([pairs], Settings(secondary=("p50 ttft", "p50 tpot"))), [pairs], declared)


def test_an_undeclared_difference_refuses_the_verdict_and_all_are_listed() -> None:
    comparison = one_cell("dtype=x engine=1 backend=q loadgen=8", "dtype=y engine=2 backend=r loadgen=9")
    primary = comparison.cells[0].primary
    assert primary.verdict is Verdict.NOT_COMPARABLE
    assert primary.why == (
        "engine is 1 for a and 2 for b; backend is q for a and r for b; loadgen is 8 for a and 9 for b; and 1 more"
    )
    assert comparison.notes[0].startswith("Declared to differ: model. Also different: engine is 1 for a and 2 for b; ")
    assert comparison.notes[0].endswith(
        "; dtype is x for a and y for b. What is meant to differ is named in comparison.factor."
    )


def test_a_declared_difference_is_noted_once_and_compared() -> None:
    comparison = one_cell("model=x", "model=y")
    assert comparison.cells[0].primary.verdict is Verdict.FASTER
    assert comparison.notes[0] == "Declared to differ: model. Also different: nothing that is known."
    assert note((), ()) == "Declared to differ: nothing. Also different: nothing that is known."


def test_unequally_warm_caches_refuse_what_prefill_is_a_part_of() -> None:
    cached = Sides((0.02, 0.04, None), (0.5, 0.6, 0.7))
    cell = one_cell("", "", cached=cached).cells[0]
    assert cell.primary.verdict is Verdict.NOT_COMPARABLE
    assert cell.primary.why == "the share of prompt tokens that came from a prefix cache is 3 % for a and 60 % for b"
    assert [cell.secondary[name].verdict for name in ("p50 ttft_s", "p50 tpot_s")] == [Verdict.NOT_COMPARABLE, None]
    assert one_cell("", "", cached=Sides((0.5,), (0.505,))).cells[0].primary.verdict is Verdict.FASTER
    assert one_cell("", "", cached=cached, declared=("prefix_caching",)).cells[0].primary.verdict is Verdict.FASTER


def test_a_warm_cache_on_one_side_and_silence_on_the_other_is_a_doubt() -> None:
    found = one_cell("", "", cached=Sides((None, None), (0.5, 0.6))).cells[0]
    assert found.primary.verdict is Verdict.FASTER
    text = "55 % of the prompt tokens of b came from its prefix cache, and a does not say how many of its own did."
    assert text in [doubt.text for doubt in found.doubts]
    quiet = one_cell("", "", cached=Sides((None, None), (0.0, 0.001))).cells[0]
    assert not any("cache" in doubt.text for doubt in quiet.doubts)


def fingerprinted(words: str, reply: str) -> Side:
    probe = Probe(prompt_sha="p", in_tok=9, in_tok_client=None, cached_tok=0, out_tok=1, out_sha=reply)
    taken = Fingerprint(target="t", server=None, key="k", ask_tok=1, exact=True, sampling={}, probes=(probe,))
    return Side(dict(text.split("=") for text in words.split()), (taken,))


@pytest.mark.parametrize(
    ("a", "b", "declared", "doubted"),
    [
        ("model=m engine=v", "model=m engine=v", (), True),
        ("model=m driver=x", "model=m driver=y", ("driver",), True),
        ("model=m host=x", "model=m host=y", (), True),
        ("model=m", "model=m", ("engine",), False),  # nothing is known of it, but it is meant to differ
        ("model=m dtype=x", "model=m dtype=y", ("dtype",), False),
        ("model=m", "model=n", (), False),
    ],
)
def test_greedy_replies_should_be_the_same_where_the_servers_are(
    a: str, b: str, declared: tuple[str, ...], doubted: bool
) -> None:
    pairs = CellPairs(cell="c", axes={}, baseline="a", candidate="b", baseline_repeats=(), candidate_repeats=())
    sides = (fingerprinted(a, "one").named("a"), fingerprinted(b, "another").named("b"))
    codes = [doubt.code for doubt in held(pairs, *sides, declared).doubts]
    assert ("outputs_differ" in codes) == doubted
    expected = None if "n" in b.split("=") else "0 of 1 greedy probes got the same reply from a and b."
    assert same_replies(*sides) == expected
