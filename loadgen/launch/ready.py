"""When a server is ready: its own path says so, the model is listed by its name, and one token comes back.

All three, because engines have been seen healthy that died at the first request (vLLM on a CPU with head_dim 16), and
because an answer may come from another server. In: a `Command` and an HTTP client. Out: nothing, or a LaunchError. It
waits for as long as waiting can help; the caller watches the process and the clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadgen import backends
from loadgen.backends import RequestOptions
from loadgen.errors import LaunchError
from loadgen.launch.command import Command

if TYPE_CHECKING:
    import httpx

TRIES = 3
"""How often an answer that may still change (500, a list without the name) is asked for again."""

BUSY = (429, 503)
"""Statuses that mean later, for as long as one likes to wait."""


class Readiness:
    """The wait for one server. ``waiting_for`` says at any moment what is missing, for the sentence of a timeout."""

    def __init__(self, command: Command, client: httpx.AsyncClient) -> None:
        self._command = command
        self._client = client
        self.waiting_for = f"GET {command.ready.path}"

    async def path_answers(self) -> None:
        """Return when the ready path answers 200."""
        import asyncio

        pause = 0.02
        while True:
            reply = await self._ask("GET", self._command.ready.path, timeout_s=10.0)
            if reply is not None and reply.status_code == 200:
                return
            await asyncio.sleep(pause)
            pause = min(0.25, pause * 1.5)

    async def serves(self) -> None:
        """Return when the model is loaded, listed and has answered a request of one token."""
        for call in self._command.preload:
            await self._insist(call.method, call.path, call.body)
        if self._command.ready.models is not None:
            await self._listed(self._command.ready.models)
        if self._command.ready.probe:
            await self._one_token()

    async def _listed(self, path: str) -> None:
        import asyncio

        wanted = self._command.ready.name
        self.waiting_for = f"GET {path} to list {wanted!r}"
        listed: list[Any] = []
        for attempt in range(TRIES):
            reply = await self._insist("GET", path, None)
            listed = names_in(_json(reply))
            if wanted in listed:
                return
            if attempt + 1 < TRIES:
                await asyncio.sleep(0.3)
        names = ", ".join(map(repr, listed)) or "nothing"
        raise LaunchError(
            f"{self._name} serves {names} and not {wanted!r} ({path}); "
            "set served_name of the target to a name that it has."
        )

    async def _one_token(self) -> None:
        command = self._command
        backend = backends.load(command.backend)
        self.waiting_for = f"one token by POST {backend.PATH}"
        prompt = backends.smallest_prompt(backend, exact=bool(command.exact))
        options = RequestOptions(
            model=command.served_name,
            stream=False,
            sampling={"temperature": 0},
            fields=dict(command.request),
            exact_fields=dict(command.exact),
        )
        reply = await self._insist("POST", backend.PATH, backend.body(prompt, options))
        try:
            chunk = backend.whole(_json(reply))
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise LaunchError(
                f"{self._name} answered a request of one token with something that is not {command.backend}: "
                f"{_excerpt(reply)}; check the target's backend."
            ) from error
        if chunk.error is not None:
            raise LaunchError(f"{self._name} answered a request of one token with an error: {chunk.error}.")
        if not chunk.carries_token and not (chunk.usage and chunk.usage.out_tok):
            raise LaunchError(f"{self._name} answered a request of one token without a token: {_excerpt(reply)}.")

    async def _insist(self, method: str, path: str, body: dict[str, Any] | None) -> httpx.Response:
        """The 2xx answer to a call: busy answers are waited out, 500 and its like tried again, 4xx believed."""
        import asyncio

        failures = 0
        while True:
            reply = await self._ask(method, path, body)
            if reply is not None and reply.is_success:
                return reply
            if reply is not None and reply.status_code not in BUSY:
                failures += 1
                if reply.status_code < 500 or failures == TRIES:
                    raise LaunchError(
                        f"{self._name} answered {method} {path} with HTTP {reply.status_code}: {_excerpt(reply)}."
                    )
            await asyncio.sleep(0.25)

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> httpx.Response | None:
        """One call; None if nobody answered (in ``timeout_s``, by default the client's own).

        ``waiting_for`` keeps what was asked and why it was not enough.
        """
        import httpx

        what = self.waiting_for.split(" (")[0]
        try:
            limit = httpx.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s
            reply = await self._client.request(method, path, json=body, timeout=limit)
        except httpx.HTTPError as error:
            self.waiting_for = f"{what} ({str(error) or type(error).__name__})"
            return None
        self.waiting_for = f"{what} (HTTP {reply.status_code})"
        return reply

    @property
    def _name(self) -> str:
        return f"{self._command.engine} (target {self._command.target})"


def _json(reply: httpx.Response) -> Any:
    """An answer's JSON, an object or a list (TGI answers a request on ``/`` with a list of one); {} if it is none."""
    try:
        return reply.json()
    except ValueError:
        return {}


def names_in(answer: Any) -> list[Any]:
    """The models of an answer: OpenAI's list, or the one that TGI's ``/info`` or TabbyAPI's ``/v1/model`` names."""
    if not isinstance(answer, dict):
        return []
    models = answer.get("data")
    listed = [model.get("id") for model in models if isinstance(model, dict)] if isinstance(models, list) else []
    return [*listed, *(answer[key] for key in ("model_id", "id") if key in answer)]


def _excerpt(reply: httpx.Response) -> str:
    """The start of an answer, for a sentence."""
    text = " ".join(reply.text.split())
    return text[:300] + (" ..." if len(text) > 300 else "") if text else "an empty answer"
