"""Secrets: which values they are, and that text is rid of them."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.errors import LaunchError, LoadgenError
from loadgen.redact import BEGINNING, STRUCK, is_secret, of_url, redact, secret_values, struck_out

KEY = "canary-4711-of-the-mine"


@pytest.mark.parametrize("name", ["HF_TOKEN", "OPENAI_API_KEY", "my_password", "TOKEN", "DB_SECRET", "APIKEY"])
def test_a_variable_is_secret_by_the_end_of_its_name(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "HF_TOKEN_PATH", "KEYBOARD", "MONKEY", "SECRETS_DIR"])
def test_a_variable_that_only_sounds_secret_is_not(name: str) -> None:
    assert not is_secret(name)


def test_secrets_are_found_in_variables_and_in_proxy_addresses_the_longest_first() -> None:
    found = secret_values(
        {"A_TOKEN": "abcdef", "HTTPS_PROXY": "http://me:pass-word@host:1", "B_KEY": "1", "PLAIN": "plain-text"},
        ["abcdefgh"],
    )
    assert found == (base64.b64encode(b"me:pass-word").decode(), "pass-word", "abcdefgh", "abcdef")
    assert redact("abcdefgh abcdef x", found) == "[secret] [secret] x"


def test_the_password_of_an_address_is_known_in_every_form_in_which_it_travels() -> None:
    header = base64.b64encode(b"me:p@ss/word").decode()
    assert set(of_url("http://me:p%40ss%2Fword@proxy:3128")) == {"p%40ss%2Fword", "p@ss/word", header}
    assert of_url("http://proxy:3128") == of_url("http://me@proxy") == of_url("http://[::1") == []


@given(st.text(), st.text(), st.integers(min_value=BEGINNING, max_value=len(KEY)))
def test_no_piece_of_a_secret_from_its_beginning_on_is_left(before: str, after: str, cut: int) -> None:
    found = redact(before + KEY[:cut] + after, [KEY])
    assert KEY[:BEGINNING] not in found
    assert STRUCK in found


def test_the_beginning_of_a_path_is_no_secret() -> None:
    assert (
        redact("reads /etc/ssl/certs with /etc/ssl/my.key", ["/etc/ssl/my.key"])
        == f"reads /etc/ssl/certs with {STRUCK}"
    )


def test_an_error_leaves_without_the_secret_and_stays_what_it_is() -> None:
    with pytest.raises(LaunchError) as caught, struck_out([KEY]):
        raise LaunchError(f"refused: Bearer {KEY}")
    assert str(caught.value) == "refused: Bearer [secret]"
    with pytest.raises(LoadgenError, match="nothing of it"), struck_out([KEY]):
        raise LoadgenError("nothing of it")
