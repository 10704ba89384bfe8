"""A model of transformers behind an OpenAI-compatible HTTP server, in one process.

    python hf_server.py --model DIR_OR_ID --port P --served-name NAME [--dtype ...] [--batching ...] ...

In: a model folder or hub id. Out: /v1/chat/completions and /v1/completions (streams of one event per token, with its
id), /v1/models, /health, /metrics, /version. Nothing of loadgen is imported, so that the python of any environment runs
this file; its parts are the `hf_*` modules beside it. The order of a start is the order of `main`: refuse what cannot
be met, reserve the port, load, warm up, listen. The port is bound at the start, so that one in use is known at once,
and listens last: a client that gets a connection gets a warm model.

Exit codes: 0 stopped by a signal, 1 the port is in use or the server died, 2 an option or a model that cannot be run.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from hf_load import Loaded, Unusable, check_options, load

if TYPE_CHECKING:
    from hf_http import Service
    from hf_metrics import Metrics
    from hf_reply import Engine

BACKLOG = 1024
SHUTDOWN_S = 4
WAYS = {
    "continuous": "continuous, one contiguous KV row per sequence (hf_batching)",
    "static": "static, a batch runs until its last reply ends (hf_batching)",
    "none": "none, one request at a time (hf_batching)",
    "paged": "continuous, transformers' ContinuousBatchingManager with a paged KV cache",
}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Serve a transformers model with OpenAI's HTTP protocol.")
    add = parser.add_argument
    add("--model", required=True, help="folder or hub id")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8000)
    add("--served-name", help="name in requests (default: --model as given)")
    add("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    add("--device", default="auto", help="auto, cpu, cuda or cuda:i")
    add("--quantization", help="refused here unless it is none")
    add("--tensor-parallel", type=int, default=1, help="refused here unless it is 1")
    add("--sharding", default="none", choices=["none", "layers"], help="refused here unless it is none")
    add("--attn", default="auto", help="auto, eager, sdpa, flash_attention_2, ...")
    add("--max-batch-size", type=positive, default=32, help="sequences that run at once")
    add(
        "--max-model-len",
        type=positive,
        help="tokens of prompt and reply together (default: the model's, at most 4096)",
    )
    add("--max-waiting", type=positive, default=1024, help="requests that may wait for a place; more get a 503")
    add("--batching", default="continuous", choices=list(WAYS))
    add("--prefix-caching", action="store_true", help="share equal beginnings of prompts (batching paged)")
    add("--load-format", default="auto", choices=["auto", "dummy"], help="dummy: random weights from the config")
    add("--seed", type=int, default=0, help="seed of dummy weights and of sampling without a seed of its own")
    add("--threads", type=positive, help="CPU threads of torch (default: its own choice)")
    add("--step-delay-ms", type=float, default=0.0, help="sleep so long in each decode step (for tests)")
    add("--trust-remote-code", action="store_true")
    return parser.parse_args()


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def main() -> int:
    """The program, from the command line to its exit code."""
    args = arguments()
    for number, code in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        signal.signal(number, lambda *_, code=code: os._exit(code))  # until it listens there is nothing to finish
    try:
        check_options(args)
        listener = reserve(args.host, args.port)
        start = time.perf_counter()
        loaded = load(args)
        load_s = time.perf_counter() - start
        say(
            f"loaded in {load_s:.2f} s: {args.model} on {loaded.device}, {loaded.model.dtype}, weights {loaded.weights}"
        )
        thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        return asyncio.run(serve(args, loaded, listener, thread, load_s))
    except Unusable as error:
        print(error, file=sys.stderr, flush=True)
        return 2
    except PortInUse as error:
        print(error, file=sys.stderr, flush=True)
        return 1


class PortInUse(Exception):
    """The port cannot be had. The message is a sentence."""


def reserve(host: str, port: int) -> socket.socket:
    """A socket bound to the address, not yet listening: clients are refused until the model is warm."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise PortInUse(f"{host}:{port} cannot be bound: {error.strerror}; choose another --port or --host.") from None
    return listener


async def serve(
    args: argparse.Namespace, loaded: Loaded, listener: socket.socket, thread: ThreadPoolExecutor, load_s: float
) -> int:
    """Warms up, listens, serves until a signal; the exit code."""
    start = time.perf_counter()
    from hf_warm import warm_paged, warm_slots

    make_engine, warmed, capacity = await (warm_paged if args.batching == "paged" else warm_slots)(args, loaded, thread)
    say(f"warmed up in {time.perf_counter() - start:.2f} s: {warmed}")
    about = describe(args, loaded, warmed=warmed, load_s=load_s)
    from hf_metrics import Metrics

    metrics = Metrics({key: str(value) for key, value in about.items() if isinstance(value, str)}, capacity)
    engine = make_engine(metrics)
    work = asyncio.create_task(engine.run())
    service = make_service(args, loaded, engine, metrics, about, work)
    gc.collect()
    gc.freeze()  # a collection over the hundreds of thousands of objects of torch would stop every stream for 0.1 s
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise PortInUse(f"{args.host}:{args.port} cannot be listened on: {error.strerror}.") from None
    say(f"ready on http://{args.host}:{listener.getsockname()[1]} as {service.reader.served_name}")
    await listen(service, listener, work)
    engine.stop()
    await work  # raises what the engine died of, if it did
    say("stopped")
    return 0


async def listen(service: Service, listener: socket.socket, work: asyncio.Task[None]) -> None:
    """Runs uvicorn on a listening socket until a signal, or until the engine dies; what is under way then gets a moment
    to end."""
    import uvicorn
    from hf_http import app

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            service.engine.stop()
            await super().shutdown(sockets)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn raises the signal that stopped it again; it is done with
    config = uvicorn.Config(
        app(service),
        backlog=BACKLOG,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=300,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    server = Server(config)
    work.add_done_callback(lambda _: setattr(server, "should_exit", True))
    await server.serve(sockets=[listener])


def make_service(
    args: argparse.Namespace,
    loaded: Loaded,
    engine: Engine,
    metrics: Metrics,
    about: dict[str, Any],
    work: asyncio.Task[None],
) -> Service:
    """What the HTTP side needs, with the tokenizer as three functions."""
    from hf_ask import Reader
    from hf_http import Service
    from hf_reply import Refused

    tokenizer = loaded.tokenizer

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    def render(messages: list[dict[str, str]]) -> list[int]:
        try:
            return encode(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
        except ValueError as error:
            raise Refused(400, f"The chat template does not take these messages: {error}", param="messages") from None

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def broken() -> str | None:
        return f"The engine ended: {work.exception()}" if work.done() else None

    render([{"role": "user", "content": "warm"}]) if tokenizer.chat_template else None
    name = args.served_name or args.model
    vocabulary = loaded.model.get_input_embeddings().weight.shape[0]
    reader = Reader(name, loaded.length, vocabulary, render, encode)
    return Service(reader, engine, metrics, decode, about, broken)


def describe(args: argparse.Namespace, loaded: Loaded, *, warmed: str, load_s: float) -> dict[str, Any]:
    """The page /version."""
    import torch
    import transformers

    config = loaded.model.config
    return {
        "server": "loadgen hf_server",
        "version": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "batching": args.batching,
        "batching_how": WAYS[args.batching],
        "model": args.model,
        "architecture": type(loaded.model).__name__,
        "weights": loaded.weights,
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "device": loaded.device,
        "quantization": loaded.quantization,
        "tensor_parallel": 1,
        "attention": config._attn_implementation,
        "experts": config._experts_implementation if getattr(config, "num_experts", None) else None,
        "max_batch_size": 1 if args.batching == "none" else args.max_batch_size,
        "max_model_len": loaded.length,
        "threads": torch.get_num_threads(),
        "warmed_up": warmed,
        "load_s": round(load_s, 3),
        "started": int(time.time()),
        "python": sys.version.split()[0],
    }


def say(line: str) -> None:
    """A line of the log."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
