"""A model of CTranslate2 behind an OpenAI-compatible HTTP server, since the library has none.

    python ct2_server.py --model DIR_OR_ID --port P --served-name NAME [--compute-type int8] [--max-batch-size 32] ...

In: a dense model in transformers' format, or one that `ct2_load` converted. Out: the endpoints of `hf_server`, whose
HTTP side this shares, with the counters of /metrics under ``ct2:``. Nothing of loadgen is imported, so that the python
of the engine's environment runs this file. Batching is static, the library's own (see `ct2_engine`).

Exit codes: 0 stopped by a signal, 1 the port is in use, 2 an option or a model that cannot be run.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ct2_engine import Model, StaticBatching
from ct2_load import TYPES, load
from hf_options import Unusable, is_path, positive
from hf_server import PortInUse, listen, reserve, say

PACKAGES = {
    "ctranslate2": "ctranslate2",
    "torch": "torch",
    "transformers": "transformers",
    "starlette": "starlette",
    "uvicorn": "uvicorn",
    "prometheus_client": "prometheus-client",
}


def main() -> int:
    """The program, from the command line to its exit code."""
    args = arguments()
    for number, code in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        signal.signal(number, lambda *_, code=code: sys.exit(code))  # SystemExit: what was being converted is removed
    try:
        check_options(args)
        listener = reserve(args.host, args.port)
        start = time.perf_counter()
        model, tokenizer = load(
            args.model,
            device=args.device,
            compute_type=args.compute_type,
            threads=args.threads or 0,
            length=args.max_model_len,
        )
        load_s = time.perf_counter() - start
        say(f"loaded in {load_s:.2f} s: {args.model} on {model.generator.device}, {model.generator.compute_type}")
        return asyncio.run(serve(args, model, tokenizer, listener, load_s))
    except Unusable as error:
        print(error, file=sys.stderr, flush=True)
        return 2
    except PortInUse as error:
        print(error, file=sys.stderr, flush=True)
        return 1


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Serve a CTranslate2 model with OpenAI's HTTP protocol.")
    add = parser.add_argument
    add("--model", required=True, help="folder or hub id; converted at the start unless it is already")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8000)
    add("--served-name", help="name in requests (default: --model as given)")
    add("--compute-type", default="auto", choices=TYPES, help="type of the weights and of their products")
    add("--device", default="auto", choices=["auto", "cpu", "cuda"])
    add("--threads", type=positive, help="CPU threads of a batch (default: the library's choice)")
    add("--max-batch-size", type=positive, default=32, help="requests in a batch")
    add("--max-model-len", type=positive, help="tokens of prompt and reply (default: the model's, at most 4096)")
    add("--max-waiting", type=positive, default=1024, help="requests that may wait for a batch; more get a 503")
    return parser.parse_args()


def check_options(args: argparse.Namespace) -> None:
    """Raises Unusable for a folder or a package that is not there. Imports nothing heavy."""
    if is_path(args.model) and not Path(args.model).is_dir():
        raise Unusable(f"The model folder {args.model} does not exist; name one, or a model of the hub as owner/name.")
    missing = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise Unusable(
            f"{sys.executable} cannot import {', '.join(missing)}; install with: "
            f"{sys.executable} -m pip install {' '.join(missing)}"
        )


async def serve(args: argparse.Namespace, model: Model, tokenizer: Any, listener: socket.socket, load_s: float) -> int:
    """Warms up, listens, serves until a signal; the exit code."""
    from hf_http import Service
    from hf_metrics import Metrics

    thread = ThreadPoolExecutor(1, thread_name_prefix="model")
    warm_s = await asyncio.get_running_loop().run_in_executor(thread, warm, model, args.max_batch_size)
    about = describe(args, model) | {"load_s": round(load_s, 3), "warmed_up_s": warm_s, "started": int(time.time())}
    info = {key: value for key, value in about.items() if isinstance(value, str)}
    metrics = Metrics(info, None, prefix="ct2")
    engine = StaticBatching(model, metrics, thread, rows=args.max_batch_size, waiting=args.max_waiting)
    work = asyncio.create_task(engine.run())

    def broken() -> str | None:
        return f"The engine ended: {work.exception()}" if work.done() else None

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    reader = make_reader(args.served_name or args.model, model, tokenizer)
    listener.listen(1024)
    say(f"ready on http://{args.host}:{listener.getsockname()[1]} as {reader.served_name}")
    await listen(Service(reader, engine, metrics, decode, about, broken), listener, work)
    engine.stop()
    await work
    say("stopped")
    return 0


def make_reader(name: str, model: Model, tokenizer: Any) -> Any:
    """What makes asks of requests, with the tokenizer as two functions."""
    from hf_ask import Reader
    from hf_reply import Refused

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    def render(messages: list[dict[str, str]]) -> list[int]:
        try:
            return encode(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
        except ValueError as error:
            raise Refused(400, f"The chat template does not take these messages: {error}", param="messages") from None

    return Reader(name, model.length, len(model.vocabulary), render, encode)


def warm(model: Model, rows: int) -> float:
    """A batch of one and a full one, so that no request pays for the first allocations; the seconds it took."""
    start = time.perf_counter()
    for count in {1, rows}:
        prompt = [model.vocabulary[token % len(model.vocabulary)] for token in range(16)]
        words = {"max_length": 4, "min_length": 4, "sampling_topk": 1, "include_prompt_in_result": False}
        model.generator.generate_batch([prompt] * count, **words)
    return round(time.perf_counter() - start, 3)


def describe(args: argparse.Namespace, model: Model) -> dict[str, Any]:
    """The page /version, without what the start measured."""
    library: Any = importlib.import_module("ctranslate2")
    return {
        "server": "loadgen ct2_server",
        "version": f"ctranslate2 {library.__version__}",
        "batching": "static",
        "batching_how": "static, a batch runs until its last reply ends (CTranslate2's generate_batch)",
        "model": args.model,
        "compute_type": model.generator.compute_type,
        "device": model.generator.device,
        "warmed_up": f"a batch of 1 and one of {args.max_batch_size}",
        "max_batch_size": args.max_batch_size,
        "max_model_len": model.length,
        "threads": args.threads or os.cpu_count(),
        "python": sys.version.split()[0],
    }


if __name__ == "__main__":
    sys.exit(main())
