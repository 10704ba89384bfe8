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

from hf_load import Loaded, load, pick_device
from hf_options import WAYS, Unusable, arguments, check_options, kv_cache
from hf_ranks import Ranks, bind_to_leader, follow, meet_leader, pipe_to_leader

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from hf_http import Service
    from hf_metrics import Metrics
    from hf_reply import Engine

BACKLOG = 1024
SHUTDOWN_S = 4
SHARDING = {"none": "none", "layers": "layers (device_map: a naive pipeline, one GPU computes at a time)"}


def main() -> int:
    """The program, from the command line to its exit code."""
    args = arguments()
    for number, code in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        signal.signal(number, lambda *_, code=code: os._exit(code))  # until it listens there is nothing to finish
    ranks: Ranks | None = None
    try:
        check_options(args)
        if args.device == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what transformers chooses by itself must be the CPU, too
        if (pipe := pipe_to_leader()) is not None:
            return rank(args, pipe)
        listener = reserve(args.host, args.port)
        ranks = Ranks(args.tensor_parallel) if args.tensor_parallel > 1 else None
        start = time.perf_counter()
        if ranks is not None:
            ranks.meet(pick_device(args.device, 0, args.tensor_parallel))
        loaded = load(args)
        load_s = time.perf_counter() - start
        say(
            f"loaded in {load_s:.2f} s: {args.model} on {loaded.device}, {loaded.model.dtype}, weights {loaded.weights}"
        )
        return asyncio.run(serve(args, loaded, listener, load_s, ranks))
    except Unusable as error:
        print(error, file=sys.stderr, flush=True)
        return 2
    except PortInUse as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    finally:
        if ranks is not None:
            ranks.end()


def rank(args: argparse.Namespace, pipe: Connection) -> int:
    """A rank that follows: loads its part of the model and does what the leader does. Does not return but by an
    error."""
    bind_to_leader()
    number = int(os.environ["RANK"])
    meet_leader(pipe, pick_device(args.device, number, args.tensor_parallel))
    loaded = load(args, number)
    from hf_warm import make_rows

    return follow(pipe, lambda: make_rows(args, loaded))


class PortInUse(Exception):
    """The port cannot be had. The message is a sentence."""


def reserve(host: str, port: int) -> socket.socket:
    """A socket bound to the address, not yet listening: clients are refused until the model is warm."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named; with it, what follows the first event
    # waits for the client's acknowledgement, 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise PortInUse(f"{host}:{port} cannot be bound: {error.strerror}; choose another --port or --host.") from None
    return listener


async def serve(
    args: argparse.Namespace, loaded: Loaded, listener: socket.socket, load_s: float, ranks: Ranks | None
) -> int:
    """Warms up, listens, serves until a signal; the exit code."""
    start = time.perf_counter()
    from hf_warm import warm_paged, warm_slots

    thread = ThreadPoolExecutor(1, thread_name_prefix="model")
    paged = args.batching == "paged"
    warm = await (warm_paged(args, loaded, thread) if paged else warm_slots(args, loaded, thread, ranks))
    warm_s = time.perf_counter() - start
    say(f"warmed up in {warm_s:.2f} s: {warm.words}")
    about = describe(args, loaded) | {
        "warmed_up": warm.words,
        "warmed_up_s": round(warm_s, 3),
        "load_s": round(load_s, 3),
        "started": int(time.time()),
    }
    from hf_metrics import Metrics

    info = {key: str(value) for key, value in about.items() if isinstance(value, str)}
    metrics = Metrics(info, warm.kv_tokens, warm.memory)
    engine = warm.engine(metrics)
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


def describe(args: argparse.Namespace, loaded: Loaded) -> dict[str, Any]:
    """The page /version, without what the start measured."""
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
        "weights_bytes": loaded.weights_bytes,
        "tensor_parallel": args.tensor_parallel,
        "sharding": SHARDING[args.sharding],
        "layers_on": loaded.layers_on,
        "kv_cache": kv_cache(args),
        "compile": args.compile,
        "prompt_logits": args.prompt_logits,
        "attention": config._attn_implementation,
        "experts": config._experts_implementation if getattr(config, "num_experts", None) else None,
        "max_batch_size": 1 if args.batching == "none" else args.max_batch_size,
        "max_model_len": loaded.length,
        "threads": torch.get_num_threads(),
        "step_delay_ms": args.step_delay_ms or None,
        "python": sys.version.split()[0],
    }


def say(line: str) -> None:
    """A line of the log."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
