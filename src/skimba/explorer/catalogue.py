"""The models that the page offers, and the pictures that go with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec

import torch
from PIL.Image import Image
from timm.data import ImageNetInfo

from skimba.data import FashionScenes, LabelledImages, embedded_test_images
from skimba.data.pictures import Mode
from skimba.data.scenes import PHOTOGRAPHS, photographs
from skimba.data.transforms import Transform, evaluation_transform
from skimba.models import TokenModel
from skimba.models.registry import MODELS
from skimba.models.variants import FASHION, HubFile
from skimba.pruning import unprune
from skimba.store import create_model

TASK = "classification"  # of pictures, in TASKS
SCENES_MEASURED = 300  # a scene takes a millisecond or two to compose


@dataclass(frozen=True)
class Example:
    """A picture to begin with. ``name`` says what it shows."""

    name: str
    image: Image


@dataclass(frozen=True)
class Gallery:
    """Pictures that come with the package.

    Attributes:
        examples: a few to look at.
        labelled: many with their classes, to measure accuracy on; None where there are none for the model's classes.
    """

    examples: Callable[[], Sequence[Example]]
    labelled: Callable[[], LabelledImages] | None = None


@dataclass(frozen=True)
class Offer:
    """A model that a visitor can choose.

    Attributes:
        name: what the page calls it.
        python: an expression that makes it, after ``import skimba``.
        arguments: how the command line names it.
        load: makes it.
        gallery: its pictures.
        classes: the names of its classes, where its weights do not bring them.
    """

    name: str
    python: str
    arguments: str
    load: Callable[[], TokenModel]
    gallery: Gallery
    classes: Callable[[], tuple[str, ...]] = tuple


class Opened:
    """An offer whose model is loaded.

    Attributes:
        given: the model as it was loaded, perhaps pruned.
        dense: without its pruning.
        classes: names by class number; empty where nobody knows them.

    Raises:
        ValueError: it is no classifier.
        ConnectionError, FileNotFoundError, ValueError: weights that are unavailable or do not fit.
    """

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        model = offer.load()
        if not isinstance(model, TokenModel) or not model.num_classes or model.task != TASK:
            raise ValueError(f"{offer.name} does not classify pictures: the explorer shows models that do")
        self.given, self.dense = model.eval(), unprune(model).eval()
        classes = tuple(model.pretrained_cfg.get("label_names") or ()) or offer.classes()
        self.classes = classes if len(classes) == model.num_classes else ()

    @property
    def mode(self) -> Mode:
        """How pictures are decoded."""
        return "L" if self.dense.in_chans == 1 else "RGB"

    @cached_property
    def transform(self) -> Transform:
        """From a picture to ``(c height width)``."""
        return evaluation_transform(self.dense)

    def name_of(self, number: int) -> str:
        """Of a class."""
        return self.classes[number] if self.classes else f"class {number}"


def embedded_offers() -> dict[str, Offer]:
    """The models whose weights come with the package."""
    return {
        name: named_offer(name)
        for name, variant in MODELS.items()
        if isinstance(variant.source, str) and variant.model.task == TASK
    }


def named_offer(name: str) -> Offer:
    """A model of :func:`skimba.list_models` with its published weights.

    Raises:
        ValueError: no such name.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(sorted(MODELS))}, or a .safetensors of save_model")
    variant = MODELS[name]
    embedded = isinstance(variant.source, str)
    gallery = (FASHION_GALLERY if variant.preprocessing is FASHION else SCENE_GALLERY) if embedded else PHOTO_GALLERY
    classes = _fashion_classes if embedded else _imagenet_classes if isinstance(variant.source, HubFile) else tuple
    python = f'skimba.create_model("{name}", pretrained=True)'
    return Offer(name, python, name, lambda: create_model(name, pretrained=True), gallery, classes)


@cache
def fashion() -> LabelledImages:
    """Fashion-MNIST's embedded test images."""
    return embedded_test_images()


@cache
def fashion_scenes() -> LabelledImages:
    """Fashion scenes of one item each. Raises ImportError without scikit-image."""
    return FashionScenes(fashion()[:SCENES_MEASURED], "test").labelled()


def _one_of_each(images: LabelledImages) -> list[Example]:
    first = [int(torch.nonzero(images.labels == number)[0]) for number in range(len(images.classes))]
    return [Example(name, images.picture(index)) for name, index in zip(images.classes, first, strict=True)]


def _fashion_examples() -> list[Example]:
    return _one_of_each(fashion())


def _scene_examples() -> list[Example]:
    return _one_of_each(fashion_scenes()) if _has_photographs() else _fashion_examples()


def _photo_examples() -> list[Example]:
    if not _has_photographs():
        return _fashion_examples()
    return [Example(name.replace("_", " "), image) for name, image in zip(PHOTOGRAPHS, photographs(), strict=True)]


def _has_photographs() -> bool:
    """They come with scikit-image, which ``skimba[scenes]`` brings."""
    return find_spec("skimage") is not None


def _fashion_classes() -> tuple[str, ...]:
    return fashion().classes


def _imagenet_classes() -> tuple[str, ...]:
    """The first of each class's names."""
    return tuple(text.split(",")[0] for text in ImageNetInfo().label_descriptions())


FASHION_GALLERY = Gallery(_fashion_examples, fashion)
SCENE_GALLERY = Gallery(_scene_examples, fashion_scenes)
PHOTO_GALLERY = Gallery(_photo_examples)
