"""What the probes of two targets say against comparing them: the gates that stand before any timing.

In: the fingerprints of both sides in one cell. Out: differences, which forbid a verdict, and doubts, which weaken it.
The same prompts must be as long for both targets and for the client; requests must be sampled alike; what a greedy
request answers should not change from one start of a server to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadgen.fair.fingerprint import Fingerprint, Probe
from loadgen.scenario.factors import covered
from loadgen.summary import Doubt

MAX_LENGTH_DIFFERENCE = 0.01
"""Prompts whose token counts differ by more are other prompts."""

OTHER_PROMPTS = ("model", "tokenizer", "template", "prompts")
"""Factors that make the same words another number of tokens."""

Side = tuple[str, Sequence[Fingerprint]]
"""A target's name for sentences, and its fingerprints in one cell."""


def differences(baseline: Side, candidate: Side, declared: Sequence[str]) -> Iterator[str]:
    """Sentences on what the probes found to differ, and was not declared to."""
    for side in (baseline, candidate):
        if text := _client_and_server(side):
            yield text
    text = _lengths(baseline, candidate)
    if text and not covered(declared) & set(OTHER_PROMPTS):
        yield text
    if "sampling" not in declared:
        yield from _sampling(baseline, candidate)


def doubts(baseline: Side, candidate: Side, declared: Sequence[str], same: bool) -> Iterator[Doubt]:
    """What weakens a comparison. ``same`` is True where nothing is known in which the servers differ: their greedy
    replies should be the same then."""
    for side in (baseline, candidate):
        yield from _of_one(*side)
    text = _lengths(baseline, candidate)
    if text and covered(declared) & set(OTHER_PROMPTS):
        yield Doubt("prompt_lengths", f"{text[:1].upper()}{text[1:]}.")
    found = alike(baseline[1], candidate[1]) if same else None
    if found is not None and found[0] < found[1]:
        yield Doubt(
            "outputs_differ",
            f"{found[1] - found[0]} of {found[1]} greedy probes got another reply from {candidate[0]} than from "
            f"{baseline[0]}, though nothing is known in which the two differ: other weights, or a server that is not "
            "deterministic.",
        )


def alike(baseline: Sequence[Fingerprint], candidate: Sequence[Fingerprint]) -> tuple[int, int] | None:
    """How many of the prompts that both sides were probed with got the same reply, of how many; None where both were
    never probed with the same."""
    before, after = _replies(baseline), _replies(candidate)
    both = [sha for sha in before if sha in after]
    return (sum(before[sha] == after[sha] for sha in both), len(both)) if both else None


def _of_one(name: str, taken: Sequence[Fingerprint]) -> Iterator[Doubt]:
    for reason in dict.fromkeys(found.skipped for found in taken if found.skipped):
        yield Doubt("no_fingerprint", f"{name} was not probed before it was timed: {reason}.")
    probes = [probe for found in taken for probe in found.probes]
    failed = [probe.err for probe in probes if probe.err is not None]
    if failed:
        text = f"{len(failed)} of {len(probes)} probes of {name} failed, the first with {failed[0]}."
        yield Doubt("probes_failed", text)
    asked = [(found.ask_tok, probe.out_tok) for found in taken if found.exact for probe in _ok(found)]
    wrong = [(ask, got) for ask, got in asked if got is not None and got != ask]
    if wrong:
        text = f"{len(wrong)} of {len(asked)} probes of {name} did not get exactly the tokens that they asked for"
        yield Doubt("not_exact", f"{text}: {wrong[0][1]} and not {wrong[0][0]}.")
    replies = _replies(taken)
    changed = [sha for sha, hashes in replies.items() if len(hashes) > 1]
    if changed:
        others = "another of its starts" if taken[0].server is not None else "another endpoint, or at another time"
        text = f"{len(changed)} of {len(replies)} greedy probes of {name} got another reply from {others}"
        yield Doubt("outputs_changed", f"{text}: its server is not deterministic, or not always the same.")


def _replies(taken: Sequence[Fingerprint]) -> dict[str, set[str]]:
    """By prompt, the replies that it got: hashes of their texts."""
    found: dict[str, set[str]] = {}
    for probe in (probe for one in taken for probe in _ok(one)):
        if probe.prompt_sha is not None and probe.out_sha is not None:
            found.setdefault(probe.prompt_sha, set()).add(probe.out_sha)
    return found


def _lengths(baseline: Side, candidate: Side) -> str | None:
    """A sentence if the same prompts are of other lengths for the two servers."""
    pairs = zip(_first(baseline[1]), _first(candidate[1]), strict=False)
    known = [(a.in_tok, b.in_tok) for a, b in pairs if a.in_tok is not None and b.in_tok is not None]
    before, after = sum(a for a, _ in known), sum(b for _, b in known)
    if not _apart(before, after):
        return None
    return (
        f"the prompts of {len(known)} probes have {before} tokens for {baseline[0]} and {after} for {candidate[0]}: "
        "the template or the tokenizer differs"
    )


def _client_and_server(side: Side) -> str | None:
    """A sentence if a server reads prompts of other lengths than the client made."""
    probes = _first(side[1])
    known = [(p.in_tok_client, p.in_tok) for p in probes if p.in_tok_client is not None and p.in_tok is not None]
    made, read = sum(made for made, _ in known), sum(read for _, read in known)
    if not _apart(made, read):
        return None
    return (
        f"the prompts of {len(known)} probes were made of {made} tokens, and {side[0]} counts {read}: it cuts or adds"
    )


def _sampling(baseline: Side, candidate: Side) -> Iterator[str]:
    """Sentences on fields that the measured requests of the two are sent with."""
    if not baseline[1] or not candidate[1]:
        return
    a, b = baseline[1][0].sampling, candidate[1][0].sampling
    for word in dict.fromkeys((*a, *b)):
        if a.get(word) != b.get(word):
            values = [one.get(word, "not set") for one in (a, b)]
            yield f"sampling.{word} is {values[0]} for {baseline[0]} and {values[1]} for {candidate[0]}"


def _first(taken: Sequence[Fingerprint]) -> tuple[Probe, ...]:
    """The probes of the first fingerprint in which all ended ok: in the order of their prompts, so that they pair."""
    return next((found.probes for found in taken if found.probes and len(_ok(found)) == len(found.probes)), ())


def _ok(found: Fingerprint) -> list[Probe]:
    return [probe for probe in found.probes if probe.err is None]


def _apart(a: int, b: int) -> bool:
    return abs(a - b) > MAX_LENGTH_DIFFERENCE * max(a, b)
