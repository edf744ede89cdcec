"""Mask R-CNN (arXiv 1703.06870) on a state space model, as the official PlainMamba detectors have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from skimba.dense.backbones import DenseBackbone
from skimba.dense.boxes import CornerAnchors
from skimba.dense.masks import paste_masks
from skimba.dense.model import DenseModel
from skimba.dense.necks import FPN, SimplePyramid
from skimba.dense.pictures import FitPictures, check_objects, check_pictures, padded
from skimba.dense.proposals import ProposalNetwork, ProposalRules
from skimba.dense.regions import BOX_SIDE, MASK_SIDE, HeadSizes, RegionHeads, RegionRules, scale_of

OFFICIAL_HEADS, OFFICIAL_PROPOSALS, OFFICIAL_REGIONS = HeadSizes(), ProposalRules(), RegionRules()
COUNTED_BOXES, COUNTED_MASKS = 1000, 100  # regions that published FLOPs assume


class MaskRCNN(DenseModel):
    """Boxes, classes and masks of objects, by torchvision's conventions. Parameter names are those of the official checkpoints.

    Args:
        backbone: gives maps.
        neck: makes of them the five maps that the heads read.
        num_classes: classes of objects, without the background.
        sizes: channels of the heads; their ``width`` is the neck's.
        anchor_scale: side of an anchor, in strides of its map.
        largest: pictures are resized, keeping their ratio, to fit into (short side, long side); None: left as they are.
        proposal_rules, region_rules: how proposals and detections are chosen and learned from.
    """

    task = "detection"

    def __init__(
        self,
        backbone: DenseBackbone,
        neck: FPN | SimplePyramid,
        num_classes: int,
        sizes: HeadSizes = OFFICIAL_HEADS,
        anchor_scale: float = 8,
        largest: tuple[int, int] | None = (800, 1333),
        proposal_rules: ProposalRules = OFFICIAL_PROPOSALS,
        region_rules: RegionRules = OFFICIAL_REGIONS,
    ) -> None:
        super().__init__()
        self.num_classes, self.backbone, self.neck = num_classes, backbone, neck
        anchors = CornerAnchors(neck.strides, anchor_scale)
        self.rpn_head = ProposalNetwork(sizes.width, sizes.rpn, anchors, proposal_rules)
        self.roi_head = RegionHeads(sizes, num_classes, neck.strides[:-1], region_rules)
        expected = backbone.pretrained_cfg
        self.pictures = FitPictures(largest, expected["mean"], expected["std"], multiple=neck.strides[-2])
        backbone.img_size = self.img_size  # on which its costs are counted and measured

    @property
    def img_size(self) -> tuple[int, int]:
        """The largest picture that the network sees, with its padding; the backbone's own if pictures are not resized."""
        return padded(self.pictures.largest or self.backbone.img_size, self.pictures.size_divisible)

    def forward(self, images: Sequence[Tensor] | Tensor, targets: Any = None) -> Any:
        """Losses while training, detections otherwise.

        Args:
            images: float pictures ``(c height width)`` of any sizes, values in 0 … 1.
            targets: while training, for each picture ``boxes (n 4)`` (x0 y0 x1 y1 in pixels), ``labels (n)`` int64 from 1 to
                ``num_classes`` and ``masks (n height width)`` bool or uint8. Without objects it is a background picture.

        Returns:
            While training ``{name: loss}``; else for each picture ``boxes (n 4)``, ``labels (n)``, ``scores (n)`` and ``masks
            (n 1 height width)`` bool, best first, in pixels of the picture as it was given.

        Raises:
            TypeError, ValueError: pictures or targets of another form, before any work.
        """
        images = list(images)
        check_pictures(images, self.backbone.in_chans, self.backbone.patch_size)
        if not self.training:
            originals = [(image.shape[1], image.shape[2]) for image in images]
            batch, _ = self.pictures(images)
            return self.detect(batch, originals)
        check_objects(images, targets, self.num_classes)
        batch, fitted = self.pictures(images, list(targets))
        return self.losses(batch, fitted)

    def maps(self, images: Tensor) -> list[Tensor]:
        """A normalised batch ``(b c height width)`` -> five maps, the finest first."""
        return self.neck(self.backbone.forward_maps(images.to(self.rpn_head.rpn_conv.weight.dtype)))

    def losses(self, batch: ImageList, targets: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The five losses of a batch as :class:`FitPictures` makes it."""
        maps = self.maps(batch.tensors)
        proposals, _, losses = self.rpn_head(maps, batch.image_sizes, targets)
        return {**losses, **self.roi_head.losses(maps[:-1], proposals, targets)}

    def detect(self, batch: ImageList, originals: Sequence[tuple[int, int]]) -> list[dict[str, Tensor]]:
        """Detections in a batch as :class:`FitPictures` makes it, in pixels of the pictures as they were (height, width)."""
        maps = self.maps(batch.tensors)
        proposals, _, _ = self.rpn_head(maps, batch.image_sizes)
        found = self.roi_head.detect(maps[:-1], proposals, batch.image_sizes, originals)
        boxes = [
            one["boxes"] * scale_of(size, original, one["boxes"])
            for one, size, original in zip(found, batch.image_sizes, originals, strict=True)
        ]
        logits = self.roi_head.masks_of(maps[:-1], boxes, [one["labels"] for one in found])
        masks = logits.sigmoid().split([len(one) for one in boxes])
        return [
            {**one, "masks": paste_masks(mask, one["boxes"], original)[:, None]}
            for one, mask, original in zip(found, masks, originals, strict=True)
        ]

    def forward_counted(self, images: Tensor) -> None:
        """As :meth:`detect`, with 1,000 boxes and 100 masks for each picture."""
        maps = self.maps(images)
        self.rpn_head.predict(maps)
        width, batch = maps[0].shape[1], len(images)
        self.roi_head.bbox_head(images.new_empty(batch * COUNTED_BOXES, width, BOX_SIDE, BOX_SIDE))
        self.roi_head.mask_head(images.new_empty(batch * COUNTED_MASKS, width, MASK_SIDE, MASK_SIDE))
