"""``skimba explore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skimba.cli._app import command, say, warn
from skimba.cli._options import Checkpoint
from skimba.cli._progress import bar
from skimba.explorer import PHOTO_GALLERY, Explorer, ExplorerServer, Offer, embedded_offers, named_offer
from skimba.explorer.catalogue import Opened
from skimba.explorer.static_page import check_folders, sides_written, write_static
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
    static: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the page for a web host instead: it runs in the browser."),
    ] = None,
    ort_web: Annotated[
        Path | None, typer.Option(help="With --static: the folder dist of npm's package onnxruntime-web.")
    ] = None,
) -> None:
    """Open the explorer: a page on this machine that shows what pruning keeps, changes and costs."""
    if share:
        raise ValueError(NO_SHARE)
    if (static is None) != (ort_web is None):
        raise ValueError("--static FOLDER and --ort-web FOLDER go together")
    if static is not None and ort_web is not None:
        write_page(offer_of(source or "vim_micro", checkpoint), static, ort_web)
        return
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


def write_page(offer: Offer, folder: Path, ort_web: Path) -> None:
    """The static page of one model."""
    check_folders(folder, ort_web)
    sides = sides_written()
    with bar("exporting", len(sides)) as advance:
        write_static(Opened(offer), folder, ort_web, sides, lambda: advance(1))
    say(f"the page is in {folder}: put it on any web host, or look at it by python -m http.server -d {folder}")


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
