"""The models that the page offers, and the pictures that go with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from importlib.util import find_spec

import torch
from PIL import ImageOps
from PIL.Image import Image
from timm.data import ImageNetInfo
from torch import Tensor
from torchvision.transforms.v2 import functional

from skimba.data import FashionScenes, LabelledImages, MovingItems, embedded_test_images
from skimba.data.pictures import Mode
from skimba.data.scene_targets import SceneObjects, dense_scenes
from skimba.data.scenes import PHOTOGRAPHS, photographs
from skimba.data.transforms import Transform, evaluation_transform
from skimba.dense import DenseModel
from skimba.dense.model import tokens_of
from skimba.dense.variants import VARIANTS
from skimba.models import TokenModel, VideoMambaClips
from skimba.models.registry import MODELS
from skimba.models.variants import FASHION, HubFile, in_package
from skimba.pruning import unprune
from skimba.store import create_model
from skimba.store.create import make_model

TASKS = ("classification", "clips")  # of classifiers
DENSE_EXAMPLES = 10
SCENES_MEASURED = 300  # a scene takes a millisecond or two to compose


@dataclass(frozen=True)
class Example:
    """A picture or clip to begin with. ``name`` says what it shows; ``frames`` gives as many of its frames as asked for."""

    name: str
    frames: Callable[[int], Sequence[Image]]

    @property
    def image(self) -> Image:
        """The picture, or the frame in the middle."""
        return self.frames(1)[0]


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
    load: Callable[[], TokenModel | DenseModel]
    gallery: Gallery
    classes: Callable[[], tuple[str, ...]] = tuple


class Opened:
    """An offer whose model is loaded.

    Attributes:
        given: the model as it was loaded, perhaps pruned.
        dense: without its pruning.
        tokens: the model whose tokens a pruning takes out: ``dense``, or its backbone.
        classes: names by class number; empty where nobody knows them.

    Raises:
        ValueError: it neither classifies, detects nor segments.
        ConnectionError, FileNotFoundError, ValueError: weights that are unavailable or do not fit.
    """

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        model = offer.load()
        if not isinstance(model, DenseModel) and not (
            isinstance(model, TokenModel) and model.num_classes and model.task in TASKS
        ):
            raise ValueError(f"{offer.name} does not classify pictures or clips, nor detect or segment what is in them")
        self.given, self.dense = model.eval(), unprune(model).eval()
        self.tokens = tokens_of(self.dense)
        classes = tuple(self.tokens.pretrained_cfg.get("label_names") or ()) or offer.classes()
        self.classes = classes if len(classes) == model.num_classes else ()

    @property
    def mode(self) -> Mode:
        """How pictures are decoded."""
        return "L" if self.tokens.in_chans == 1 else "RGB"

    @property
    def clips(self) -> bool:
        """Whether it takes clips."""
        return isinstance(self.dense, VideoMambaClips)

    @property
    def frames(self) -> int:
        """How many make what the model takes: 1 for pictures."""
        return self.tokens.grid[0] if self.clips else 1

    @property
    def classifier(self) -> TokenModel:
        """The dense model. Raises ValueError if it is no classifier."""
        return self.as_classifier(lambda: self.dense)

    def as_classifier(self, make: Callable[[], TokenModel | DenseModel]) -> TokenModel:
        """What ``make`` makes of this model by pruning it. Raises ValueError, before any work, if it is no classifier."""
        if isinstance(self.dense, DenseModel):
            raise ValueError(f"{self.offer.name} is no classifier, and this view is of classifiers")
        model = make()
        assert isinstance(model, TokenModel)  # pruning changes no kind
        return model

    @cached_property
    def transform(self) -> Transform:
        """From a picture to ``(c height width)``: normalised for a classifier; of a detector or segmenter the middle of the
        picture, at the size that its costs are counted on, with values in 0 … 1."""
        return self._middle if isinstance(self.dense, DenseModel) else evaluation_transform(self.dense)

    def tensor(self, frames: Sequence[Image]) -> Tensor:
        """``(1 c height width)``, or of a clip ``(1 c t height width)``, as the model takes it."""
        found = torch.stack([self.transform(frame.convert(self.mode)) for frame in frames], 1)[None]
        return found if self.clips else found[:, :, 0]

    def _middle(self, picture: Image) -> Tensor:
        height, width = self.dense.img_size
        found: Tensor = functional.pil_to_tensor(ImageOps.fit(picture, (width, height))).float() / 255
        return found

    def name_of(self, number: int) -> str:
        """Of a class."""
        return self.classes[number] if self.classes else f"class {number}"


def embedded_offers() -> dict[str, Offer]:
    """The models whose weights come with the package."""
    classifiers = [name for name, one in MODELS.items() if in_package(one.source) and one.model.task in TASKS]
    dense = [
        f"{kind}:{name}"
        for kind, variants in VARIANTS.items()
        for name, one in variants.items()
        if any(in_package(file) for file in one.weights.values())
    ]
    return {name: named_offer(name) for name in (*classifiers, *dense)}


def named_offer(name: str) -> Offer:
    """A model of :func:`skimba.list_models`, or ``mask_rcnn:NAME`` or ``upernet:NAME``, with its published weights.

    Raises:
        ValueError: no such name.
    """
    kind, _, dense = name.partition(":")
    if kind in VARIANTS:
        return _dense_offer(kind, dense)
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(sorted(MODELS))}, or a .safetensors of save_model")
    variant = MODELS[name]
    embedded = isinstance(variant.source, str)
    gallery = (FASHION_GALLERY if variant.preprocessing is FASHION else SCENE_GALLERY) if embedded else PHOTO_GALLERY
    classes = _fashion_classes if embedded else _imagenet_classes if isinstance(variant.source, HubFile) else tuple
    if variant.model.task == "clips":
        gallery, classes = CLIP_GALLERY, _clip_classes if embedded else tuple
    python = f'skimba.create_model("{name}", pretrained=True)'
    return Offer(name, python, name, lambda: create_model(name, pretrained=True), gallery, classes)


def _dense_offer(kind: str, name: str) -> Offer:
    variants = VARIANTS[kind]
    if name not in variants or not variants[name].weights:
        known = ", ".join(f"{kind}:{one}" for one, variant in variants.items() if variant.weights)
        raise ValueError(f"no weights of {kind}:{name} are published; known: {known}")
    weights, source = next(iter(variants[name].weights.items()))
    gallery = DENSE_GALLERY if isinstance(source, str) else PHOTO_GALLERY
    python = f'skimba.{kind}("{name}", pretrained="{weights}")'
    return Offer(f"{kind}:{name}", python, f"{kind}:{name}", lambda: make_model(kind, name, weights), gallery)


@cache
def fashion() -> LabelledImages:
    """Fashion-MNIST's embedded test images."""
    return embedded_test_images()


@cache
def fashion_scenes() -> LabelledImages:
    """Fashion scenes of one item each. Raises ImportError without scikit-image."""
    return FashionScenes(fashion()[:SCENES_MEASURED], "test").labelled()


def _first_of_each(images: LabelledImages) -> list[int]:
    """The first image of each class."""
    return [int(torch.nonzero(images.labels == number)[0]) for number in range(len(images.classes))]


def _one_of_each(images: LabelledImages) -> list[Example]:
    found = zip(images.classes, _first_of_each(images), strict=True)
    return [_still(name, images.picture(index)) for name, index in found]


def _still(name: str, image: Image) -> Example:
    """A picture as an example; as a clip it stands still."""
    return Example(name, lambda count: [image] * count)


def _fashion_examples() -> list[Example]:
    return _one_of_each(fashion())


def _scene_examples() -> list[Example]:
    return _one_of_each(fashion_scenes()) if _has_photographs() else _fashion_examples()


@cache
def _dense_examples() -> list[Example]:
    if not _has_photographs():
        return _fashion_examples()
    scenes = SceneObjects(dense_scenes(fashion(), "test"))
    return [_still(f"scene {number + 1}", scenes.picture(number)) for number in range(DENSE_EXAMPLES)]


def _photo_examples() -> list[Example]:
    if not _has_photographs():
        return _fashion_examples()
    return [_still(name.replace("_", " "), image) for name, image in zip(PHOTOGRAPHS, photographs(), strict=True)]


@cache
def _moving_items() -> MovingItems:
    """Clips of the test images. Raises ImportError without scikit-image."""
    return MovingItems(fashion(), "test")


def _clip_examples() -> list[Example]:
    """One clip of each item, the first that shows it."""
    if not _has_photographs():
        return _fashion_examples()
    clips = _moving_items()
    first = _first_of_each(clips.items)
    return [Example(clips.classes[clips.target(index)], partial(clips.frames, index)) for index in first]


def _has_photographs() -> bool:
    """They come with scikit-image, which ``skimba[scenes]`` brings."""
    return find_spec("skimage") is not None


def _fashion_classes() -> tuple[str, ...]:
    return fashion().classes


def _clip_classes() -> tuple[str, ...]:
    return _moving_items().classes if _has_photographs() else ()


def _imagenet_classes() -> tuple[str, ...]:
    """The first of each class's names."""
    return tuple(text.split(",")[0] for text in ImageNetInfo().label_descriptions())


FASHION_GALLERY = Gallery(_fashion_examples, fashion)
SCENE_GALLERY = Gallery(_scene_examples, fashion_scenes)
PHOTO_GALLERY = Gallery(_photo_examples)
CLIP_GALLERY = Gallery(_clip_examples)
DENSE_GALLERY = Gallery(_dense_examples)
