"""Nights for people who look at a page: ``site``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loadgen.cli.flags import Store
from loadgen.cli.screen import printable, tell

commands = typer.Typer()


@commands.command(epilog="Example: loadgen site --store /srv/loadgen -o /var/www/html/nights")
def site(
    store: Store = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Where to (default: the folder site of the store)."),
    ] = None,
) -> None:
    """Write the pages of all nights as static files.

    They are for any web server, or for a browser on this disk.

    A folder that is named is meant to be served: everyone on this machine can read what is written there.
    """
    from loadgen.nightly.site import write_site
    from loadgen.store import store_root

    print(printable(str(write_site(store_root(store), out, lambda text: tell(f"loadgen: {text}")))))
