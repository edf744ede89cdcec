"""Classification of clips: as of pictures, over frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.functional import pil_to_tensor

from skimba.data import Pictures
from skimba.data.pictures import Clips
from skimba.data.transforms import SHIFT, Transform, evaluation_transform
from skimba.models import VideoMambaClips
from skimba.tasks.classification import Classification


@dataclass(frozen=True)
class ClipReader:
    """Clips of one size with their classes: ``(b c t height width)`` float32, targets ``(b)`` int64.

    Attributes:
        transform: of a picture, applied to each frame.
        frames: how many.
    """

    transform: Transform
    frames: int

    def read(self, pictures: Clips, index: int) -> tuple[Tensor, int]:
        frames = [self.transform(frame) for frame in pictures.frames(index, self.frames)]
        return torch.stack(frames, 1), pictures.target(index)

    def collate(self, samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
        clips = torch.stack([clip for clip, _ in samples]) if samples else torch.empty(0)
        return clips, torch.tensor([label for _, label in samples], dtype=torch.int64)


@dataclass(frozen=True)
class ShiftedClipReader(ClipReader):
    """For training on small clips: all frames of a clip shift alike. No mirroring: it would turn directions around."""

    transform: v2.Transform

    def read(self, pictures: Clips, index: int) -> tuple[Tensor, int]:
        frames = torch.stack([pil_to_tensor(frame) for frame in pictures.frames(index, self.frames)])  # (t c h w) uint8
        return self.transform(frames).transpose(0, 1), pictures.target(index)


def shift_clips(config: dict[str, Any]) -> v2.Transform:
    """Random shifts by up to SHIFT pixels, of ``(t c height width)`` uint8; ``config`` as timm's."""
    size = config["input_size"][-2:]
    return v2.Compose(
        [
            v2.Resize(size, v2.InterpolationMode.BICUBIC, antialias=True),
            v2.RandomCrop(size, padding=SHIFT),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(config["mean"], config["std"]),
        ]
    )


@dataclass(frozen=True)
class ClipClassification(Classification):
    """Settings as of :class:`~skimba.tasks.Classification`, of which only the augmentation ``"shift"`` is for clips."""

    def check(self, model: VideoMambaClips, pictures: Pictures) -> None:  # type: ignore[override]
        if not isinstance(pictures, Clips):
            raise ValueError(f"{type(model).__name__} takes clips; these are pictures")
        super().check(model, pictures)

    def reader(self, model: VideoMambaClips) -> ClipReader:  # type: ignore[override]
        return ClipReader(evaluation_transform(model), model.grid[0])

    def training_reader(self, model: VideoMambaClips) -> ShiftedClipReader:  # type: ignore[override]
        if self.augmentation != "shift":
            raise ValueError(f"clips are augmented by shifts, got augmentation {self.augmentation!r}")
        return ShiftedClipReader(shift_clips(model.pretrained_cfg), model.grid[0])
