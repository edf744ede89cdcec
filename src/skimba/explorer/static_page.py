"""The page for any web host: models as ONNX files that onnxruntime-web runs in the visitor's browser, no server behind it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from timm.data import resolve_data_config
from torch import Tensor

from skimba.dense import DenseModel
from skimba.explorer.answers import cost, stage_blocks_of
from skimba.explorer.catalogue import Opened
from skimba.explorer.pictures import seen
from skimba.explorer.server import page_files
from skimba.explorer.shown_model import write_shown
from skimba.explorer.sides import Side, code
from skimba.insight import trace
from skimba.pruning import METHODS
from skimba.runtime.version import VERSION

ORT_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
METHODS_WRITTEN, SHARES = ("hold", "top", "condensed"), (0.5, 0.7, 0.9)
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'"
)


def sides_written(methods: tuple[str, ...] = METHODS_WRITTEN, shares: tuple[float, ...] = SHARES) -> list[Side]:
    """What a static page shows: one file each."""
    return [Side(), *(Side(method, share=share) for method in methods for share in shares)]


def write_static(
    opened: Opened,
    folder: Path,
    ort_web: Path,
    sides: list[Side],
    on_file: Callable[[], None] | None = None,
) -> None:
    """Write the page and what it needs.

    Args:
        folder: a new or empty one.
        ort_web: the folder ``dist`` of npm's package onnxruntime-web, of which three files are copied.
        sides: dense and prunings by share; every method in it at the same shares.
        on_file: called after each model's file.

    Raises:
        ValueError: the folder holds something, ``ort_web`` is not onnxruntime-web's, the model does not classify pictures, or it
            cannot be exported.
    """
    if opened.clips or isinstance(opened.dense, DenseModel):
        server = f"clips, detectors and segmenters need the server: skimba explore {opened.offer.arguments}"
        raise ValueError(f"a static page is of models that classify pictures, {opened.offer.name} does not; {server}")
    check_folders(folder, ort_web)
    for name in ("models", "pictures", "ort"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ORT_FILES:
        (folder / "ort" / name).write_bytes((ort_web / name).read_bytes())
    for path, content in _page():
        (folder / path).write_bytes(content)
    examples = _write_pictures(opened, folder)
    written = []
    for side in sides:
        written.append(_write_side(opened, side, examples[0], folder))
        if on_file is not None:
            on_file()
    about = {
        "version": VERSION,
        "methods": {side.method: str(METHODS[side.method]) for side in sides if side.method in METHODS},
        "shares": sorted({side.share for side in sides if side.share is not None}),
        "models": [{**_describe(opened, examples[0]), "sides": written}],
    }
    (folder / "explorer.json").write_text(json.dumps(about), encoding="utf-8")


def check_folders(folder: Path, ort_web: Path) -> None:
    """Raise ValueError unless the one is empty or not there and the other holds onnxruntime-web."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"the static page goes into a new or empty folder, {folder} is not")
    if missing := [name for name in ORT_FILES if not (ort_web / name).is_file()]:
        raise ValueError(
            f"{ort_web} has no {missing[0]}: --ort-web is the folder dist of onnxruntime-web, which skimba neither ships (14 MB) "
            "nor fetches: npm install onnxruntime-web, then --ort-web node_modules/onnxruntime-web/dist"
        )


def _page() -> Iterator[tuple[str, bytes]]:
    """The page's files, with the questions answered in the browser."""
    for path, (_, content) in page_files().items():
        if path == "/index.html":
            policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<title>'
            content = content.replace(b"<title>", policy.encode(), 1)
        if path not in ("/", "/api.js"):
            yield path[1:], content
    yield "api.js", (resources.files("skimba.explorer") / "offline" / "api.js").read_bytes()


def _write_pictures(opened: Opened, folder: Path) -> list[Tensor]:
    """The examples as the model sees them; as tensors ``(1 c height width)``."""
    found = []
    for number, example in enumerate(opened.offer.gallery.examples()):
        found.append(opened.tensor(example.frames(1)))
        (folder / "pictures" / f"{opened.offer.name}-{number}.png").write_bytes(seen(found[-1], opened))
    return found


def _write_side(opened: Opened, side: Side, image: Tensor, folder: Path) -> dict[str, Any]:
    model = side.classifier(opened)
    with torch.inference_mode():
        owned = trace(model, image)[-1].owner is not None
    share = "" if side.share is None else f"-{side.share:g}"
    file = f"models/{opened.offer.name}-{side.method}{share}.onnx"
    write_shown(model, owned, folder / file)
    return {
        "method": side.method,
        "share": side.share,
        "file": file,
        "owned": owned,
        "after": stage_blocks_of(model),
        "gflops": cost(model),
        "code": code(side, opened, model),
    }


def _describe(opened: Opened, image: Tensor) -> dict[str, Any]:
    config, model = resolve_data_config(model=opened.classifier), opened.classifier
    layout = model.embed(image).layout
    return {
        "name": opened.offer.name,
        "depth": len(model.layers),
        "grid": list(layout.grid),
        "cells": layout.image_part(torch.arange(layout.full_length)[None]).flatten().tolist(),
        "classToken": model.class_token_count > 0,
        "size": list(model.img_size),
        "channels": model.in_chans,
        **{"mean": list(config["mean"]), "std": list(config["std"]), "crop": config["crop_pct"]},
        "classes": list(opened.classes),
        "examples": [example.name for example in opened.offer.gallery.examples()],
    }
