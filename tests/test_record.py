"""The request line is a contract: what is written is read back, by this version and around what others add."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.record import (
    STATUSES,
    VERSION,
    Chunk,
    Message,
    Prompt,
    Record,
    Usage,
    from_line,
    host_name,
    read_records,
    to_line,
)

CONTRACT = """
v run cell target rep attempt server endpoint driver worker seq session turn source phase t_sched t_send t_first t_last
t_end conn_s ttft_s tpot_s e2e_s chunk_us chunk_tok ask_tok in_tok in_tok_client cached_tok out_tok tok_source clock
lag_us_max coalesced status http err finish server_times prompt_sha out_sha text
"""


def record(**fields: Any) -> Record:
    return Record(**{"seq": 3, "session": 3, "phase": "measure", "t_sched": 1.25, "status": "ok", **fields})


def test_a_line_has_the_fields_of_the_contract_in_its_order() -> None:
    line = to_line(record())
    assert list(json.loads(line)) == CONTRACT.split()
    assert (line.count(b"\n"), line[-1:]) == (1, b"\n")
    assert json.loads(line)["v"] == VERSION == 1


@given(
    st.builds(
        record,
        t_send=st.none() | st.floats(0, 1e6),
        chunk_us=st.lists(st.integers(0, 10**12), max_size=5),
        chunk_tok=st.none() | st.lists(st.integers(0, 99), max_size=5),
        err=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
        text=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
        status=st.sampled_from(STATUSES),
        server_times=st.none() | st.dictionaries(st.sampled_from("ab"), st.integers(0, 9)),
    )
)
def test_what_is_written_is_read_back_from_one_line(before: Record) -> None:
    line = to_line(before)
    assert line.count(b"\n") == 1
    assert from_line(line) == before


def test_fields_of_a_later_version_are_passed_over() -> None:
    line = json.dumps({**json.loads(to_line(record())), "new": {"a": 1}}).encode()
    assert from_line(line) == record()


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"{}", to_line(record())[:-9], b'{"seq": "x"}'])
def test_a_line_that_is_no_record_raises(line: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        from_line(line)


def test_a_file_that_was_cut_gives_every_record_whose_line_was_finished(tmp_path: Path) -> None:
    records = [record(seq=n, session=n) for n in range(3)]
    data = b"".join(map(to_line, records))
    plain, packed = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(data))
    for cut in range(len(data)):
        plain.write_bytes(data[:cut])
        assert list(read_records([plain])) == records[: data[:cut].count(b"\n")]
    plain.write_bytes(data)
    assert list(read_records([plain, packed])) == records * 2


def test_a_prompts_sha_is_that_of_what_is_asked_and_of_nothing_else() -> None:
    chat = Prompt(source="a", ask_tok=5, messages=(Message("user", "hi"),))
    assert chat.sha() == Prompt(source="b", ask_tok=9, exact=True, messages=(Message("user", "hi"),)).sha()
    others = [
        Prompt(source="a", ask_tok=5, messages=(Message("user", "ho"),)),
        Prompt(source="a", ask_tok=5, messages=(Message("system", "hi"),)),
        Prompt(source="a", ask_tok=5, text="hi"),
        Prompt(source="a", ask_tok=5, token_ids=(1, 2)),
        Prompt(source="a", ask_tok=5, token_ids=(12,)),
    ]
    shas = {prompt.sha() for prompt in [chat, *others]}
    assert len(shas) == 6
    assert all(len(sha) == 16 and int(sha, 16) >= 0 for sha in shas)


@pytest.mark.parametrize(
    ("chunk", "carries"),
    [
        (Chunk(), False),
        (Chunk(finish="stop", usage=Usage(1, 2)), False),
        (Chunk(text=" "), True),
        (Chunk(tokens=1), True),
        (Chunk(tokens=0), False),
    ],
)
def test_text_or_a_token_id_is_what_carries_a_token(chunk: Chunk, carries: bool) -> None:
    assert chunk.carries_token is carries


def test_a_cumulative_chunk_counts_for_what_it_adds() -> None:
    one = Chunk(text="He", tokens=1, cumulative=True)
    two = Chunk(text="Hello", tokens=3, cumulative=True, finish="stop")
    assert one.after(None) == Chunk(text="He", tokens=1)
    assert two.after(one) == Chunk(text="llo", tokens=2, finish="stop")
    assert two.after(two) == Chunk(text="", tokens=0, finish="stop")
    assert one.after(two) == Chunk(text="He", tokens=0)  # text that does not go on from the one before is taken whole
    plain = Chunk(text="x")
    assert plain.after(one) is plain


@pytest.mark.parametrize(
    ("host", "name"), [("gpu-7", "gpu-7"), ("a_b/../c.local", "a-b----c-local"), ("", "host"), ("x" * 64, "x" * 40)]
)
def test_a_hosts_name_is_a_part_of_a_files_name(monkeypatch: pytest.MonkeyPatch, host: str, name: str) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    assert host_name() == name
