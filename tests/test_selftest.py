"""The self-test, at loads that any machine carries: its numbers come from the null server's own log."""

from __future__ import annotations

from pathlib import Path

from cli_runner import loadgen

from loadgen.reports.selftest import render
from loadgen.selftest import Ceiling, Trial


def trial(what: str, load: int, why: str | None = None) -> Trial:
    return Trial(
        what=what, load=load, tokens_per_s=load * 50.0, requests_per_s=1.0, error_ms=(0.01, 0.02), late_ms=(0.1, 0.2),
        server_late_ms=0.1, cpu=0.5, why=why,
    )  # fmt: skip


def test_the_self_test_says_what_can_be_trusted_here(tmp_path: Path) -> None:
    done = loadgen(tmp_path, "selftest", "--quick")
    rows = [line.split() for line in done.out.splitlines() if line.split()[1:2] in (["streams"], ["requests/s"])]
    assert rows[0][:2] == ["1", "streams"]
    for row in rows:
        assert abs(float(row[4])) < 5.0  # our first-token stamp less the server's, p50, in ms
    assert ("Trusted here:" in done.out) == (done.code == 0)


def test_the_ceiling_is_the_last_load_before_the_first_that_was_not_good() -> None:
    good = (trial("streams", 1), trial("streams", 16), trial("streams", 64, "late"), trial("requests/s", 50))
    ceiling = Ceiling(trials=good)
    best = ceiling.best("streams")
    assert best is not None
    assert best.load == 16
    text = render(ceiling)
    assert "Trusted here: 16 streams (800 tokens/s)" in text
    assert "NOT trusted\n" in text
    assert "\n64 streams: late\n" in text


def test_a_machine_that_cannot_be_trusted_is_told_so() -> None:
    text = render(Ceiling(trials=(trial("streams", 1, "late"), trial("requests/s", 50))))
    assert "cannot be trusted with any load" in text
