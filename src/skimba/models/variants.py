"""What a model's name stands for: its sizes, where its weights are and how they expect a picture, the paper's schedule."""

from __future__ import annotations

import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from skimba.data import fashion_mnist, scenes
from skimba.models.base import TokenModel

HUB_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class HubFile:
    """A file in a Hugging Face Hub repository."""

    repository: str
    name: str

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"https://huggingface.co/{self.repository}/resolve/main/{self.name}"


@dataclass(frozen=True)
class WebFile:
    """A file at an address."""

    url: str

    @property
    def name(self) -> str:
        """Its own name."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Preprocessing:
    """How a model's weights expect a picture: mean and deviation of each channel in 0 … 1, and the crop's share of its side."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_share: float


IMAGENET = Preprocessing(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, 0.875)
FASHION = Preprocessing((fashion_mnist.MEAN,), (fashion_mnist.STD,), 1.0)
SCENES = Preprocessing((scenes.MEAN,) * 3, (scenes.STD,) * 3, 1.0)
# Sizes of the models in the package: 196 tokens of a 28-pixel image of Fashion-MNIST, or of a 56-pixel fashion scene.
MICRO = {"img_size": 28, "patch_size": 2, "in_chans": 1, "embed_dim": 64, "depth": 8, "num_classes": 10}
MICRO_SCENES = {**MICRO, "img_size": 56, "patch_size": 4, "in_chans": 3}
Source = HubFile | WebFile | str | None  # a str: a file name under skimba/assets; None: no weights are published


@dataclass(frozen=True)
class Variant:
    """What a name stands for.

    Attributes:
        model: the class.
        sizes: its arguments.
        source: of the weights.
        about: size and published figures, with their source.
        preprocessing: what the weights expect.
        paper_schedule: ``{blocks: share of the tokens kept}`` as the paper prunes this model; None if no paper does.
    """

    model: type[TokenModel]
    sizes: Mapping[str, Any]
    source: Source
    about: str
    preprocessing: Preprocessing = IMAGENET
    paper_schedule: Mapping[int, float] | None = None


def in_package(source: Source) -> bool:
    """Whether it is a file of this installation of skimba."""
    return isinstance(source, str) and _packaged(source).is_file()


def _packaged(name: str) -> Path:
    return Path(str(resources.files("skimba") / "assets" / name))


def fetch(source: Source) -> Path:
    """Local path of a weights file; hub files are downloaded (and cached by ``huggingface_hub``) when first asked for.

    Raises:
        FileNotFoundError: a packaged file is missing, or no weights are published.
        ConnectionError: the hub cannot be reached and the file is not in its cache.
    """
    if isinstance(source, str):
        path = _packaged(source)
        if not path.is_file():
            raise FileNotFoundError(f"no weights {source} in this installation of skimba (looked in {path.parent})")
        return path
    if source is None:
        raise FileNotFoundError(
            "no weights of this model are published: give a file of yours as checkpoint=PATH (--checkpoint)"
        )
    if isinstance(source, WebFile):
        path = Path(torch.hub.get_dir()) / "checkpoints" / source.name
        if path.is_file():
            return path
    elif isinstance(cached := try_to_load_from_cache(source.repository, source.name), str):
        return Path(cached)
    try:
        if isinstance(source, WebFile):
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(source.url, str(path), progress=False)
            return path
        _reach_hub()
        return Path(hf_hub_download(source.repository, source.name, etag_timeout=HUB_TIMEOUT_S))
    except Exception as error:  # the hub client raises its HTTP library's own types: all mean "unavailable"
        raise ConnectionError(
            f"cannot download {source.name} ({type(error).__name__}). Fetch it on a connected machine from "
            f"{source.url}, put it anywhere, and pass its path as checkpoint=PATH (--checkpoint)"
        ) from error


def _reach_hub() -> None:
    """Raise OSError at once if the hub is out of reach: its client would retry for half a minute.

    Through a proxy the hub's own name may not resolve here, so the client has to find out.
    """
    hub = urllib.parse.urlsplit(ENDPOINT)
    if urllib.request.getproxies().get(hub.scheme) is None:
        port = hub.port or {"https": 443, "http": 80}[hub.scheme]
        socket.create_connection((hub.hostname, port), timeout=HUB_TIMEOUT_S).close()


def check_images(images: Tensor, in_chans: int, patch_size: int, axes: str = "height width") -> None:
    """Raise unless ``images`` is a non-empty float batch ``(b in_chans height width)`` of at least one patch; or clips, where
    ``axes`` is ``"frames height width"``."""
    if not images.is_floating_point():
        raise TypeError(f"images must be floating point (normalised), got {images.dtype}")
    if images.dim() != 2 + len(axes.split()) or images.shape[1] != in_chans:
        raise ValueError(f"images must be (b {in_chans} {axes}), got {tuple(images.shape)}")
    if min(images.shape[-2:]) < patch_size or 0 in images.shape[2:]:
        raise ValueError(
            f"images must be at least one patch ({patch_size} px) high and wide, got {tuple(images.shape)}"
        )


def linear_drop_path(last_rate: float, depth: int) -> list[float]:
    """Stochastic depth rates rising linearly from 0 to ``last_rate``."""
    return [last_rate * block / max(depth - 1, 1) for block in range(depth)]
