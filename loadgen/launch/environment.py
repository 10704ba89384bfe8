"""What a server gets to see of our environment, and what must never be written down.

In: our own variables and a `Command`. Out: the server's variables, and the values that are struck out of its log. An
engine inherits by an allow-list, so that two runs differ by what their scenarios say and not by what happened to be
exported; the rest of a scenario's needs goes into ``env`` of its target.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

ALLOWED = (
    # where things are, and in which language
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "VIRTUAL_ENV"),
    *("CONDA_PREFIX", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "PYTHON*"),
    *("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_*", "MALLOC_*"),
    # accelerators and their libraries
    *("CUDA_*", "NVIDIA_*", "NCCL_*", "NVSHMEM_*", "HIP_*", "HSA_*", "ROCM_*", "ROCR_*", "UCX_*", "GLOO_*"),
    *("TORCH_*", "TORCHINDUCTOR_*", "PYTORCH_*", "TRITON_*", "FLASHINFER_*"),
    *("OMP_*", "MKL_*", "KMP_*", "GOMP_*", "OPENBLAS_*", "NUMEXPR_*"),
    # hubs and engines
    *("HF_*", "HUGGING_FACE_HUB_TOKEN", "TRANSFORMERS_*", "TOKENIZERS_*", "MODELSCOPE_*"),
    *("VLLM_*", "SGLANG_*", "TRTLLM_*", "LMDEPLOY_*", "GGML_*", "CT2_*"),
    *("LLAMA_CACHE", "OLLAMA_MODELS"),  # the rest of theirs are options of the server, which a scenario has words for
    *("DOCKER_*", "CONTAINERS_*"),
    # the way out to a hub
    *("SSL_CERT_*", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
)

LOOPBACK = ("127.0.0.1", "localhost", "::1")

SHORTEST_SECRET = 6
"""Shorter values are not struck out: ``true`` and ``1`` would take half of the log with them."""


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """The allowed part of ``environ``. A proxy is passed on for the hub's sake, and never used for loopback; a key that
    the server would ask for (``VLLM_API_KEY``) is given by the target's ``api_key_env`` alone."""
    kept = {name: environ[name] for name in sorted(environ) if any(fnmatchcase(name, known) for known in ALLOWED)}
    kept = {name: value for name, value in kept.items() if not name.endswith("_API_KEY")}
    for name in ("NO_PROXY", "no_proxy"):
        if any(other.lower().endswith("_proxy") for other in kept):
            hosts = [host for host in kept.get(name, "").split(",") if host and host not in LOOPBACK]
            kept[name] = ",".join((*hosts, *LOOPBACK))
    return kept


def is_secret(name: str) -> bool:
    """True for a variable whose name says that its value is one: ``HF_TOKEN``, ``MY_API_KEY``, ``DB_PASSWORD``."""
    return (
        re.search(r"(^|_)(TOKEN|KEY|APIKEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$", name.upper()) is not None
    )


def secret_values(environ: Mapping[str, str], more: Iterable[str] = ()) -> tuple[str, ...]:
    """The values to strike out: of variables named like secrets, of passwords in proxy addresses, and ``more``.

    The longest come first, so that a secret which contains another goes as a whole.
    """
    found = set(more)
    for name, value in environ.items():
        if is_secret(name):
            found.add(value)
        elif name.lower().endswith("_proxy") and "@" in value:
            found.update(re.findall(r"//[^/@:]*:([^/@]+)@", value))
    return tuple(sorted((value for value in found if len(value) >= SHORTEST_SECRET), key=len, reverse=True))


def redact(text: str, secrets: Iterable[str]) -> str:
    """``text`` with every secret replaced by ``[secret]``."""
    for secret in secrets:
        text = text.replace(secret, "[secret]")
    return text
