"""loadgen: a load generator for LLM serving that says how far its own numbers can be trusted.

Read ``run.py`` first: it is the only file that knows the order of the story. This file imports nothing, because the
worker processes of the measuring path import the package and pay for every import on the processor they measure with.
"""

__version__ = "0.1.0"
