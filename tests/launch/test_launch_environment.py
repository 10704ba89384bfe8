"""What a server inherits, and what never reaches its log."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.launch.environment import inherited
from loadgen.launch.log import LogCopy, clean, tail


def test_a_server_inherits_by_an_allow_list() -> None:
    ours = {
        "PATH": "/bin",
        "HF_TOKEN": "x",
        "CUDA_VISIBLE_DEVICES": "0",
        "LC_ALL": "C",
        "PYTORCH_CUDA_ALLOC_CONF": "y",
        "AWS_SECRET_ACCESS_KEY": "no",
        "EDITOR": "vi",
        "OPENAI_API_KEY": "no",
    }
    assert set(inherited(ours)) == {"PATH", "HF_TOKEN", "CUDA_VISIBLE_DEVICES", "LC_ALL", "PYTORCH_CUDA_ALLOC_CONF"}


def test_what_happens_to_be_exported_does_not_set_a_server_up() -> None:
    ours = {"VLLM_API_KEY": "k", "LLAMA_API_KEY": "k", "LLAMA_ARG_CTX_SIZE": "1", "OLLAMA_NUM_PARALLEL": "9"}
    assert inherited(ours | {"OLLAMA_MODELS": "/m", "VLLM_CACHE_ROOT": "/c"}) == {
        "OLLAMA_MODELS": "/m",
        "VLLM_CACHE_ROOT": "/c",
    }


def test_a_proxy_is_passed_on_for_the_hub_but_not_used_for_loopback() -> None:
    env = inherited({"https_proxy": "http://p:3128", "NO_PROXY": "corp,localhost"})
    assert env["https_proxy"] == "http://p:3128"
    assert env["NO_PROXY"] == "corp,127.0.0.1,localhost,::1"
    assert env["no_proxy"] == "127.0.0.1,localhost,::1"
    assert "NO_PROXY" not in inherited({"PATH": "/bin"})


def test_terminal_escapes_and_control_characters_are_taken_out() -> None:
    line = b"\x1b[1;32mINFO\x1b[0m \x1b]0;title\x07ok\x1b]8;;http://x\x1b\\link\x00\x08 \ttab \xe4\xb8\xad"
    assert clean(line, []) == b"INFO oklink \ttab \xe4\xb8\xad"


def copied(folder: Path, pieces: list[bytes], secrets: list[str]) -> str:
    read_end, write_end = os.pipe()
    log = LogCopy(read_end, folder / "server.log", secrets, lambda: None)
    for piece in pieces:
        os.write(write_end, piece)
    os.close(write_end)
    log.wait_for_end(60.0)
    log.finish(60.0)
    return (folder / "server.log").read_text()


@given(cuts=st.lists(st.integers(0, 60), max_size=6))
def test_a_secret_is_struck_out_however_the_pipe_cuts_it(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    text = b"key=hunter2-hunter2 and again hunter2-hunter2\nnext\r 10%\r 20%\nend"
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges) if a < b]
    log = copied(tmp_path_factory.mktemp("log"), pieces, ["hunter2-hunter2"])
    assert log.split("\n") == ["key=[secret] and again [secret]", "next", " 10%", " 20%", "end"]


def test_half_a_secret_is_held_back_until_the_rest_has_come(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    log = LogCopy(read_end, tmp_path / "server.log", ["hunter2-hunter2"], lambda: None)
    os.write(write_end, b"a line without an end: hunter2-hun")
    until = time.monotonic() + 60
    while not tail(tmp_path / "server.log", 1) and time.monotonic() < until:
        time.sleep(0.02)
    assert "hunter2" not in (tmp_path / "server.log").read_text()
    assert (tmp_path / "server.log").read_text().startswith("a line without")  # a hang right here would be seen
    os.write(write_end, b"ter2!\n")
    os.close(write_end)
    log.wait_for_end(60.0)
    log.finish(60.0)
    assert (tmp_path / "server.log").read_text() == "a line without an end: [secret]!\n"


def test_a_log_can_be_finished_while_a_child_holds_the_pipe(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    log = LogCopy(read_end, tmp_path / "server.log", [], lambda: None)
    os.write(write_end, b"last words\n")
    log.finish(5.0)
    assert (tmp_path / "server.log").read_text() == "last words\n"
    os.close(write_end)


def test_the_log_is_private(tmp_path: Path) -> None:
    copied(tmp_path, [b"x\n"], [])
    assert (tmp_path / "server.log").stat().st_mode & 0o777 == 0o600


def test_the_tail_of_a_log_is_its_last_lines_and_of_no_log_nothing(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    assert tail(path, 20) == []
    path.write_text("".join(f"{number}\n" for number in range(100)))
    assert tail(path, 3) == ["97", "98", "99"]
