"""``skimba explore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skimba.cli._app import command, say, warn
from skimba.cli._options import Checkpoint
from skimba.explorer import PHOTO_GALLERY, Explorer, ExplorerServer, Offer, embedded_offers, named_offer
from skimba.explorer.catalogue import Opened
from skimba.runtime.messages import one_line
from skimba.store import create_model

NO_SHARE = (
    "--share is refused: the explorer serves this machine only, because it has neither users nor passwords. To look at it from "
    "another machine that you can log in to: ssh -L PORT:127.0.0.1:PORT HOST"
)


@command("explore")
def explore(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]", help="A name, or a .safetensors of train or export-weights; beside the embedded models."
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of this machine; 0: any that is free.")] = 0,
    share: Annotated[bool, typer.Option("--share", help="Refused: the page is for this machine only.")] = False,
) -> None:
    """Open the explorer: a page on this machine that shows what pruning keeps, changes and costs."""
    if share:
        raise ValueError(NO_SHARE)
    offers = {offer.name: offer for offer in ([] if source is None else [offer_of(source, checkpoint)])}
    if source is not None:
        Opened(offers[next(iter(offers))])  # what cannot be loaded is a line here, not on the page
    explorer = Explorer({**offers, **{name: one for name, one in embedded_offers().items() if name not in offers}})
    try:
        server = ExplorerServer(explorer, port, lambda fault: warn(f"skimba: {one_line(fault)}"))
    except OSError as error:
        explorer.close()
        raise ValueError(f"port {port} cannot be used ({error.strerror}); leave --port out for a free one") from error
    with server:
        say(f"the explorer is at {server.url} (Ctrl-C ends it)")
        server.serve_forever()


def offer_of(source: str, checkpoint: Path | None) -> Offer:
    """The model of a name or a file, as the page offers it."""
    if not source.endswith(".safetensors"):
        offer = named_offer(source)
        if checkpoint is None:
            return offer
        python = f'skimba.create_model("{source}", checkpoint={str(checkpoint)!r})'
        return Offer(
            f"{source} ({checkpoint.name})",
            python,
            f"{source} --checkpoint {checkpoint}",
            lambda: create_model(source, checkpoint=checkpoint),
            offer.gallery,
            offer.classes,
        )
    if checkpoint is not None:
        raise ValueError("a model file has its own weights: give a name with --checkpoint")
    python = f"skimba.create_model(checkpoint={source!r})"
    return Offer(Path(source).name, python, source, lambda: create_model(checkpoint=source), PHOTO_GALLERY)
