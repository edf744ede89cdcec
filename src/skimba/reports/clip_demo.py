"""The demo of clips: merging in space against merging in space and time, at the same FLOPs, on clips of moving items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from skimba.data import Clips, MovingItems, embedded_test_images
from skimba.data.loading import in_order, load_batches
from skimba.data.pictures import SelectedClips
from skimba.models import TokenModel
from skimba.pruning import METHODS, Flops, Method, Pairs, prune
from skimba.reports.demo import Measured, figures, in_turns
from skimba.store import create_model
from skimba.tasks import task_of

MODEL = "videomamba_micro"
CLIPS = 1000  # that are measured: all that show an item of the package
BATCH = 50
REDUCTIONS = (0.4, 0.6)  # of the dense model's exact FLOPs
Variant = tuple[str, float]  # its name in the table and its reduction
DENSE: Variant = ("dense", 0.0)


def in_space(method: Method) -> Method:
    """The same method with pairs inside a frame only."""
    assert isinstance(method.part, Pairs)
    return replace(method, reduction=replace(method.part, within="frame"))


TITLES: dict[str, Method] = {
    "condensed": METHODS["condensed"],
    "top (paper)": METHODS["top"],
    "hold in space": in_space(METHODS["hold_clips"]),
    "hold in space and time": METHODS["hold_clips"],
}


@dataclass(frozen=True)
class Row(Measured):
    """One line of the table; its inputs are clips.

    Attributes:
        reduction: of the dense model's exact FLOPs, as asked for.
    """

    reduction: float


def clips() -> Clips:
    """Clips of the test images in the package, over the parts of the photographs that no training clip shows.

    Raises ImportError without scikit-image, which holds the photographs.
    """
    return SelectedClips(MovingItems(embedded_test_images(), "test"), range(CLIPS))


def variants() -> dict[Variant, TokenModel]:
    """The dense model and its pruned forms."""
    model = create_model(MODEL, pretrained=True).eval()
    found: dict[Variant, TokenModel] = {DENSE: model}
    for reduction in REDUCTIONS:
        for title, method in TITLES.items():
            found[title, reduction] = prune(model, method, Flops(1 - reduction))
    return found


def measure(
    models: Mapping[Variant, TokenModel], shown: Clips, on_batch: Callable[[], None] | None = None
) -> list[Row]:
    """All variants on the same clips, each batch through every variant in turn."""
    reader = task_of(models[DENSE]).reader(models[DENSE])
    batches = list(load_batches(shown, reader, in_order(len(shown), BATCH), 0, strict=True))
    logits, times = in_turns(models, (batch.images for batch in batches), on_batch)
    labels = torch.cat([batch.targets for batch in batches])
    return [
        Row(method=key[0], reduction=key[1], **figures(model, logits[key], labels, times[key], times[DENSE]))
        for key, model in models.items()
    ]


def drawn(models: Mapping[Variant, TokenModel], shown: Clips) -> tuple[dict[str, TokenModel], Tensor, Tensor]:
    """What a drawing shows: models by title, the first clip ``(1 c t height width)`` as they take it, and to look at
    ``(3 t height width)`` in 0 … 1."""
    titled = {"dense": models[DENSE]}
    titled |= {f"{title}, -{REDUCTIONS[-1]:.0%} FLOPs": models[title, REDUCTIONS[-1]] for title in TITLES}
    clip, _ = task_of(models[DENSE]).reader(models[DENSE]).read(shown, 0)
    frames = shown.frames(0, clip.shape[1])
    return titled, clip[None], torch.stack([pil_to_tensor(frame) for frame in frames], 1) / 255
