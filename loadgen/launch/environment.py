"""What a server gets to see of our environment.

In: our own variables. Out: those that a server inherits. That goes by an allow-list, so that two runs differ by what
their scenarios say and not by what happened to be exported; the rest of a scenario's needs goes into ``env`` of its
target.
"""

from __future__ import annotations

from collections.abc import Mapping
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
