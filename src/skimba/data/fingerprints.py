"""Fingerprints of data sets, without decoding pictures: interrupted work must resume with the same data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from skimba.data.pictures import Pictures

BLOCK = 1000  # pictures per digest: how precisely a change can be located


def fingerprint(pictures: Pictures) -> dict[str, Any]:
    """Names, targets and stamps (file sizes) of all pictures, in order, as plain data for JSON.

    Pictures are not read: one replaced by another of the same size, name and class goes unnoticed. The status of every file
    is read once (about 10 s for ImageNet on a local disk).
    """
    every = range(len(pictures))
    blocks = [range(start, min(start + BLOCK, len(pictures))) for start in every[::BLOCK]]
    return {
        "pictures": len(pictures),
        "mode": pictures.mode,
        "classes": [len(pictures.classes), _digest(pictures.classes)],
        "names": [_digest(map(pictures.name, block)) for block in blocks],
        "targets": [_digest(map(pictures.target, block)) for block in blocks],
        "sizes": [_digest(map(pictures.stamp, block)) for block in blocks],
    }


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two fingerprints, in words; empty if they agree."""
    found = []
    if before.get("pictures") != now["pictures"]:
        found.append(f"{before.get('pictures')} pictures then, {now['pictures']} now")
    if before.get("mode") != now["mode"]:
        found.append(f"mode {before.get('mode')} then, {now['mode']} now")
    if before.get("classes") != now["classes"]:
        found.append("other names of classes")
    for what, said in (
        ("names", "other names"),
        ("targets", "other targets"),
        ("sizes", "other files (sizes or pixels)"),
    ):
        if (block := _first_difference(before.get(what), now[what])) is not None:
            last = min(block * BLOCK + BLOCK, now["pictures"]) - 1
            found.append(f"{said} among pictures {block * BLOCK} … {last}")
    return found


def _first_difference(before: Any, now: list[str]) -> int | None:
    """The first block whose digest differs or is missing."""
    known = before if isinstance(before, list) else []
    return next((block for block, digest in enumerate(now) if known[block : block + 1] != [digest]), None)


def _digest(values: Iterable[object]) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(str(value).encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:16]
