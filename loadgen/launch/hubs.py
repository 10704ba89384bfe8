"""The hubs that engines fetch models from: where each keeps what it fetched, and whether it has a model at all.

In: a model's id and the environment of the server that would fetch it (ours with what recipe and target add: the option
``hub`` sets the engine's own variable). Out: a sentence with the command that fetches the model, before any server is
started; None if nothing speaks against it. Hugging Face and its mirrors (``HF_ENDPOINT``), and ModelScope.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import msgspec

MODELSCOPE = ("VLLM_USE_MODELSCOPE", "SGLANG_USE_MODELSCOPE", "LMDEPLOY_USE_MODELSCOPE")
"""Variables by which engines ask ModelScope; the recipes' ``hub: modelscope`` sets them."""

ANSWER_S = 10.0


class Hub(msgspec.Struct, frozen=True):
    """A hub as an engine would use it. ``page`` is where it tells of a model, ``caches`` are the folders in which that
    model may lie here, ``fetch`` is the command that puts it there; ``offline`` says that it is not to be asked."""

    name: str
    endpoint: str
    page: str
    caches: tuple[Path, ...]
    fetch: str
    offline: bool
    token: str | None

    @property
    def held(self) -> bool:
        """Whether the model lies in the cache, as far as a look at its folder can tell."""
        return any(path.is_dir() and any(path.iterdir()) for path in self.caches)


def hub_of(model: str, environ: Mapping[str, str]) -> Hub:
    """The hub that has this model's files, by what the environment says."""
    offline = any(_on(environ.get(name)) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    if any(_on(environ.get(name)) for name in MODELSCOPE):
        domain = environ.get("MODELSCOPE_DOMAIN") or "www.modelscope.cn"
        endpoint = (environ.get("MODELSCOPE_ENDPOINT") or f"https://{domain}").rstrip("/")
        page, fetch = f"{endpoint}/api/v1/models/{quote(model)}", f"modelscope download --model {shlex.quote(model)}"
        return Hub("ModelScope", endpoint, page, _modelscope(model, environ), fetch, offline, None)
    endpoint = (environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    caches = (hub_cache(environ) / f"models--{model.replace('/', '--')}" / "snapshots",)
    token = environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN")
    page, fetch = f"{endpoint}/api/models/{quote(model)}", f"hf download {shlex.quote(model)}"
    return Hub("Hugging Face", endpoint, page, caches, fetch, offline, token)


def not_at_hand(model: str, environ: Mapping[str, str]) -> str | None:
    """Why a model cannot be had where no hub may be asked; None if it is in the cache, or may be fetched."""
    hub = hub_of(model, environ)
    if not hub.offline or hub.held:
        return None
    return (
        f"the model {model} is not in the local cache ({_place(hub)}) and the hub is switched off (HF_HUB_OFFLINE); "
        f"fetch it once with: HF_HUB_OFFLINE=0 {hub.fetch}"
    )


def not_to_be_had(model: str, environ: Mapping[str, str]) -> str | None:
    """Why the hub that an engine would fetch a model from cannot give it; asks the hub, once, for what is not here.

    An answer that leaves it open (a busy hub, a certificate that only the engine trusts, a model that may need the
    token of `hf auth login`) speaks against nothing.
    """
    hub = hub_of(model, environ)
    if hub.offline or hub.held:
        return None
    status = _asked(hub)
    if status is None:
        mirror = " (a mirror: HF_ENDPOINT=URL)" if hub.name == "Hugging Face" else ""
        return (
            f"the model {model} is not in the local cache ({_place(hub)}), and {hub.endpoint} does not answer{mirror}; "
            f"where there is a network, fetch it with: {hub.fetch}"
        )
    if status == 404 or (status == 401 and hub.token is None and not _logged_in(environ)):
        more = ", or it is private: export HF_TOKEN" if status == 401 else ""
        return (
            f"{hub.name} has no model {model} ({hub.page} says {status}){more}; mend the id, or give the folder of a "
            f"model. One that exists there is fetched with: {hub.fetch}"
        )
    return None


def hub_cache(environ: Mapping[str, str]) -> Path:
    """The folder in which Hugging Face's own tools keep what they fetched."""
    if named := environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(named)
    return _hf_home(environ) / "hub"


def _hf_home(environ: Mapping[str, str]) -> Path:
    home = environ.get("HF_HOME") or str(Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface")
    return Path(home).expanduser()


def _modelscope(model: str, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where ModelScope's tools, those of today first, may have put a model: they write dots of its name as ``___``."""
    base = Path(environ.get("MODELSCOPE_CACHE") or Path.home() / ".cache" / "modelscope").expanduser()
    owner, _, name = model.partition("/")
    safe = name.replace(".", "___")
    return (
        base / "models" / model.replace("/", "--") / "snapshots",
        *(base / folder / owner / safe for folder in ("models", "hub/models", ".", "hub")),
        *(base / folder / owner / name for folder in ("models", ".", "hub")),
    )


def _place(hub: Hub) -> Path:
    """The cache of a hub, for a sentence."""
    return hub.caches[0].parent.parent


def _asked(hub: Hub) -> int | None:
    """The status of the hub's answer, None where nobody answers; 0 for an answer that says nothing."""
    import httpx

    headers = {"authorization": f"Bearer {hub.token}"} if hub.token else {}
    try:
        with httpx.stream("GET", hub.page, headers=headers, timeout=ANSWER_S, follow_redirects=True) as answer:
            return answer.status_code
    except httpx.TransportError as error:
        return 0 if "CERTIFICATE" in str(error).upper() or isinstance(error, httpx.ReadTimeout) else None
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError):  # the last two: a proxy that httpx cannot use
        return 0


def _logged_in(environ: Mapping[str, str]) -> bool:
    """Whether the hub's own tools keep a token of their own, which an engine would send."""
    return Path(environ.get("HF_TOKEN_PATH") or _hf_home(environ) / "token").expanduser().exists()


def _on(value: str | None) -> bool:
    return (value or "").upper() in ("1", "ON", "YES", "TRUE")
