"""UperNet (arXiv 1807.10221) on a state space model, as the official PlainMamba segmenters have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from skimba.dense.backbones import DenseBackbone
from skimba.dense.model import DenseModel
from skimba.dense.pictures import FitPictures, check_maps, check_pictures, fit, padded
from skimba.dense.uper_head import FCNHead, UperHead, resize_map

IGNORED = 255  # a class of the label map that is not learned
AUXILIARY_WEIGHT = 0.4
MULTIPLE = 32  # of the sides of a picture that is tested


class UperNet(DenseModel):
    """The class of every pixel. Parameter names are those of the official checkpoints.

    Args:
        backbone: gives four maps.
        num_classes: classes, numbered from 0; 255 in a label map is ignored.
        width: channels of the head.
        auxiliary_width: channels of the head that helps while training; it reads the last map.
        dropout: of whole channels before the classes.
        largest: tested pictures are resized, keeping their ratio, to fit into (short side, long side), and then up to
            multiples of 32; None: left as they are.
    """

    task = "segmentation"

    def __init__(
        self,
        backbone: DenseBackbone,
        num_classes: int,
        width: int = 512,
        auxiliary_width: int = 256,
        dropout: float = 0.1,
        largest: tuple[int, int] | None = (512, 2048),
    ) -> None:
        super().__init__()
        self.num_classes, self.largest, self.backbone = num_classes, largest, backbone
        self.decode_head = UperHead(backbone.channels, width, num_classes, dropout)
        self.auxiliary_head = FCNHead(backbone.channels[-1], auxiliary_width, num_classes, dropout)
        expected = backbone.pretrained_cfg
        self.pictures = FitPictures(None, expected["mean"], expected["std"], multiple=1)
        backbone.img_size = self.img_size  # on which its costs are counted and measured

    @property
    def img_size(self) -> tuple[int, int]:
        """The largest picture that the network sees; the backbone's own if pictures are not resized."""
        return self.largest or self.backbone.img_size

    def forward(self, images: Sequence[Tensor] | Tensor, targets: Any = None) -> Any:
        """Losses while training, the classes of all pixels otherwise.

        Args:
            images: float pictures ``(c height width)``, values in 0 … 1, of any sizes; while training of one size.
            targets: while training, for each picture its map ``(height width)`` of classes, uint8 or int64; 255 is ignored.

        Returns:
            While training ``{name: loss}``; else for each picture ``classes (height width)`` int64 and the ``logits (num_classes
            height width)`` that they are the largest of, in pixels of the picture as it was given.

        Raises:
            TypeError, ValueError: pictures or maps of another form, before any work.
        """
        images = list(images)
        check_pictures(images, self.backbone.in_chans, self.backbone.patch_size)
        if not self.training:
            return [self._segment(self.pictures.normalize(image)) for image in images]
        check_maps(images, targets, self.num_classes, IGNORED)
        if len({image.shape for image in images}) > 1:
            raise ValueError(
                f"while training all pictures must be of one size, got {sorted({tuple(i.shape[1:]) for i in images})}"
            )
        batch = torch.stack([self.pictures.normalize(image) for image in images])
        return self.losses(batch, torch.stack(list(targets)))

    def logits(self, images: Tensor) -> Tensor:
        """A normalised batch ``(b c height width)`` -> logits ``(b num_classes height width)``."""
        return resize_map(self.decode_head(self.maps(images)), images.shape[2:])

    def maps(self, images: Tensor) -> list[Tensor]:
        """A normalised batch ``(b c height width)`` -> the backbone's maps."""
        return self.backbone.forward_maps(images.to(self.decode_head.conv_seg.weight.dtype))

    def losses(self, images: Tensor, classes: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of both heads; ignored pixels add nothing but are counted in the mean.

        Args:
            images: normalised ``(b c height width)``.
            classes: ``(b height width)``.
        """
        maps = self.maps(images)
        return {
            "loss_decode": _cross_entropy(self.decode_head(maps), classes),
            "loss_auxiliary": AUXILIARY_WEIGHT * _cross_entropy(self.auxiliary_head(maps[-1]), classes),
        }

    def segment(self, images: Tensor, original: tuple[int, int]) -> Tensor:
        """A normalised batch, resized for the network -> logits ``(b num_classes height width)`` at the original size.

        compat: the logits are resized twice, to the batch's size and from there.
        """
        logits = self.logits(images)
        return logits if tuple(images.shape[2:]) == original else resize_map(logits, original)

    def _segment(self, image: Tensor) -> dict[str, Tensor]:
        original = (image.shape[1], image.shape[2])
        if self.largest is not None:
            fitted = fit(original, self.largest)
            image = resize_map(resize_map(image[None], fitted), padded(fitted, MULTIPLE))[0]  # compat: in two steps
        logits = self.segment(image[None], original)[0]
        return {"classes": logits.argmax(0), "logits": logits}

    def forward_counted(self, images: Tensor) -> None:
        """The backbone and the decoding head, as the published figures count."""
        self.decode_head(self.maps(images))


def _cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    logits = resize_map(logits, classes.shape[1:])
    return F.cross_entropy(logits, classes.long(), ignore_index=IGNORED, reduction="sum") / classes.numel()
