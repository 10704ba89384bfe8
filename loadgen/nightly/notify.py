"""Where people are told of a night: a webhook (the JSON of Slack, Mattermost and others) and GitHub's step summary.

In: lines. Out: a message on its way. Nothing here fails a night: what goes wrong comes back as a sentence. The
webhook's URL is a secret, and stands in no sentence. What is worth telling is decided in ``telling.py``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

TIMEOUT_S = 10.0
PAUSES_S = (1.0, 5.0)
"""Between one try and the next."""

LONGEST_WAIT_S = 30.0
MOST_LINES = 40
SUMMARY_BYTES = 1_000_000
"""GitHub takes 1 MiB a step."""


def message(title: str, lines: Sequence[str], foot: str) -> str:
    """A message in Slack's words: bold title, a bullet for each line, and where to look."""
    shown = [f"• {_escaped(one)}" for one in lines[:MOST_LINES]]
    more = [f"• and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    return "\n".join([f"*{_escaped(title)}*", *shown, *more, _escaped(foot)])


def send(variable: str, text: str, pauses_s: Sequence[float] = PAUSES_S) -> str | None:
    """Posts a text to the webhook whose URL is in an environment variable; what went wrong, None if nothing did."""
    import httpx

    url = os.environ.get(variable)
    if not url:
        return f"the webhook was not told: the environment has no variable {variable}."
    problem = ""
    for pause in (*pauses_s, None):
        wait = pause
        try:
            with httpx.stream("POST", url, json={"text": text}, timeout=TIMEOUT_S, follow_redirects=False) as reply:
                if reply.is_success:  # what it says besides may never end
                    return None
            problem = f"it answers HTTP {reply.status_code}"
            if not (reply.status_code == 429 or reply.status_code >= 500):
                break
            wait = _longer(wait, reply.headers.get("retry-after"))
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
            problem = "that is no URL"
            break
        except httpx.HTTPError as error:
            problem = f"it cannot be reached ({type(error).__name__})"
        except (ImportError, OSError, ValueError) as error:  # found when a client is made, before anything is sent
            kind = type(error).__name__
            problem = f"the proxy or the certificates that the environment names cannot be used ({kind})"
            break
        if wait is not None:
            time.sleep(wait)
    return f"the webhook of {variable} was not told: {problem}. It will be after the next night."


def write_summary(text: str) -> str | None:
    """Adds Markdown to the summary of a step of GitHub Actions, where this is one; what went wrong, or None."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return None
    try:
        with open(path, "a", encoding="utf-8") as file:
            room = SUMMARY_BYTES - file.tell()
            file.write(text if len(text.encode()) < room else "The summary of this night is too long for this page.\n")
    except OSError as error:
        return f"cannot write $GITHUB_STEP_SUMMARY: {error.strerror}."
    return None


def _longer(pause: float | None, asked: str | None) -> float | None:
    """A pause, or what the server asks for if that is longer; None after the last try."""
    if pause is None or asked is None or not asked.isdecimal():
        return pause
    return min(max(pause, float(asked)), LONGEST_WAIT_S)


def _escaped(text: str) -> str:
    """Text in which Slack sees no links and no calls of people."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
