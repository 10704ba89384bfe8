"""Engines: a recipe and a target's options become a command, a process, a ready endpoint, and afterwards nothing.

``library`` reads recipes (data, in ``launchers/``), ``render`` makes a `Command` of one (pure), ``start`` makes it a
`Server`, which knows when it is ready (``ready``), what it said (``log``) and what that means (``hints``), which
processes are its own (``processes``), and how to prove that it is gone (``proof``). ``leftovers`` finds the servers of
runs that were killed, or told to keep them. A server is started so::

    recipe = load_recipe(spec.engine, spec.folder)
    make = partial(render, recipe, spec, run_id=run, launchers=launchers_folder(), folder=folder)
    server = start_ready(lambda port: make(port=port), folder)
"""

from loadgen.launch.command import Command, LaunchSpec, OptionError, dry_run_text
from loadgen.launch.hubs import hub_cache
from loadgen.launch.leftovers import Leftover, kill_leftover, leftovers
from loadgen.launch.library import launchers_folder, load_recipe, recipes
from loadgen.launch.memory import MemoryProof, memory_proof
from loadgen.launch.models import made_folder, make_model, missing_model_sentence
from loadgen.launch.ports import free_port
from loadgen.launch.processes import ProcessId, boot_id, this_process
from loadgen.launch.proof import StopProof
from loadgen.launch.recipe import Recipe
from loadgen.launch.render import render, resolved, trusted, wire_of
from loadgen.launch.server import LaunchCancelled, PortLost, Server
from loadgen.launch.start import start, start_ready

__all__ = [
    "Command",
    "LaunchCancelled",
    "LaunchSpec",
    "Leftover",
    "MemoryProof",
    "OptionError",
    "PortLost",
    "ProcessId",
    "Recipe",
    "Server",
    "StopProof",
    "boot_id",
    "dry_run_text",
    "free_port",
    "hub_cache",
    "kill_leftover",
    "launchers_folder",
    "leftovers",
    "load_recipe",
    "made_folder",
    "make_model",
    "memory_proof",
    "missing_model_sentence",
    "recipes",
    "render",
    "resolved",
    "start",
    "start_ready",
    "this_process",
    "trusted",
    "wire_of",
]
