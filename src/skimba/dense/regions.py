"""What proposals hold: their class, their box, their mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import batched_nms, clip_boxes_to_image, roi_align

from skimba.dense.boxes import BestMatcher, ClampedBoxCoder
from skimba.dense.masks import mask_targets
from skimba.dense.parts import ConvNorm, at_least_float32
from skimba.dense.proposals import Target

BOX_SIDE, MASK_SIDE = 7, 14  # cells of a region that the heads read
FINEST = 56  # regions up to twice this side (pixels) are read from the finest map
Sizes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class RegionRules:
    """How detections are chosen and learned from; the defaults are the official ones.

    Attributes:
        least_score: a detection scores above this.
        overlap: above this intersection over union, the lower scored of two detections of one class goes.
        detections: most detections of a picture.
        learned: regions of a picture that the losses read.
        positive_share: at most, of those.
    """

    least_score: float = 0.05
    overlap: float = 0.5
    detections: int = 100
    learned: int = 512
    positive_share: float = 0.25


@dataclass(frozen=True)
class HeadSizes:
    """Channels of the heads; the defaults are the official ones.

    Attributes:
        width: of the maps that all heads read.
        rpn: of the proposal network's convolution.
        box: of the box head's convolutions.
        box_hidden: of its hidden layer.
        mask: of the mask head's convolutions.
    """

    width: int = 256
    rpn: int = 256
    box: int = 256
    box_hidden: int = 1024
    mask: int = 256


class BoxHead(nn.Module):
    """Four convolutions with BatchNorm, a hidden layer; classes (the background last) and the deltas of every class."""

    def __init__(self, sizes: HeadSizes, num_classes: int) -> None:
        super().__init__()
        widths = [sizes.width, *[sizes.box] * 4]
        self.shared_convs = nn.ModuleList(ConvNorm(a, b, 3) for a, b in pairwise(widths))
        hidden = nn.Linear(sizes.box * BOX_SIDE**2, sizes.box_hidden)
        self.shared_fcs = nn.ModuleList([hidden])
        self.fc_cls = nn.Linear(sizes.box_hidden, num_classes + 1)
        self.fc_reg = nn.Linear(sizes.box_hidden, num_classes * 4)
        nn.init.xavier_uniform_(hidden.weight)
        nn.init.normal_(self.fc_cls.weight, std=0.01)
        nn.init.normal_(self.fc_reg.weight, std=0.001)
        for linear in (hidden, self.fc_cls, self.fc_reg):
            nn.init.zeros_(linear.bias)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """``(n c 7 7)`` -> logits ``(n classes+1)`` and deltas ``(n classes*4)``."""
        for conv in self.shared_convs:
            regions = conv(regions)
        hidden = F.relu(self.shared_fcs[0](regions.flatten(1)))
        return at_least_float32(self.fc_cls(hidden)), at_least_float32(self.fc_reg(hidden))


class MaskHead(nn.Module):
    """Four convolutions, one that doubles the side, a mask for every class."""

    def __init__(self, sizes: HeadSizes, num_classes: int) -> None:
        super().__init__()
        widths = [sizes.width, *[sizes.mask] * 4]
        self.convs = nn.ModuleList(ConvNorm(a, b, 3, norm=False) for a, b in pairwise(widths))
        self.upsample = nn.ConvTranspose2d(sizes.mask, sizes.mask, 2, 2)
        self.conv_logits = nn.Conv2d(sizes.mask, num_classes, 1)
        for conv in (self.upsample, self.conv_logits):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, regions: Tensor) -> Tensor:
        """``(n c 14 14)`` -> logits ``(n classes 28 28)``."""
        for conv in self.convs:
            regions = conv(regions)
        return at_least_float32(self.conv_logits(F.relu(self.upsample(regions))))


def align_regions(maps: Sequence[Tensor], strides: Sequence[int], boxes: Sequence[Tensor], side: int) -> Tensor:
    """``(n c side side)``: each region read from the map that suits its size.

    Args:
        maps: ``(b c h w)``, the finest first.
        strides: of the maps, in pixels.
        boxes: the regions ``(n 4)`` of each picture.
        side: cells of a region.

    Source: FPN (arXiv 1612.03144), equation 1, with the official detectors' finest scale; RoIAlign aligned, as many points in a
    cell as it has pixels.
    """
    image = torch.cat([torch.full((len(one), 1), number, device=one.device) for number, one in enumerate(boxes)])
    flat = torch.cat(list(boxes))
    area = (flat[:, 2] - flat[:, 0]) * (flat[:, 3] - flat[:, 1])
    finest = FINEST * strides[0] / 4
    level = (area.clamp(min=0).sqrt() / finest + 1e-6).log2().floor().clamp(0, len(maps) - 1)
    rois = torch.cat([image.to(flat.dtype), flat], 1)
    out = maps[0].new_zeros(len(rois), maps[0].shape[1], side, side)
    for number, (one, stride) in enumerate(zip(maps, strides, strict=True)):
        mine = (level == number).nonzero()[:, 0]
        wide = at_least_float32(one)
        read = roi_align(wide, rois[mine].to(wide.dtype), (side, side), 1 / stride, sampling_ratio=0, aligned=True)
        out = out.index_copy(0, mine, read.to(out.dtype))
    return out


class RegionHeads(RoIHeads):
    """torchvision's, with mmdetection's regions, matches and losses. Parameter names are those of the official checkpoints.

    Labels count from 1 here, as in torchvision, and the background is 0; in the weights it is the last class.

    Args:
        sizes: see :class:`HeadSizes`.
        num_classes: classes of objects, without the background.
        strides: of the maps that regions are read from.
        rules: see :class:`RegionRules`.
    """

    def __init__(self, sizes: HeadSizes, num_classes: int, strides: Sequence[int], rules: RegionRules) -> None:
        super().__init__(
            None, None, None, 0.5, 0.5, rules.learned, rules.positive_share, None,
            rules.least_score, rules.overlap, rules.detections,
        )  # fmt: skip
        self.box_coder = ClampedBoxCoder((10.0, 10.0, 5.0, 5.0))
        self.proposal_matcher = BestMatcher(0.5, 0.5, least=0.5)
        self.num_classes, self.strides = num_classes, tuple(strides)
        self.bbox_head = BoxHead(sizes, num_classes)
        self.mask_head = MaskHead(sizes, num_classes)

    def add_gt_proposals(self, proposals: list[Tensor], gt_boxes: list[Tensor]) -> list[Tensor]:
        """The objects' own boxes stand first."""
        return [torch.cat([own, found]) for own, found in zip(gt_boxes, proposals, strict=True)]

    def boxes_of(self, maps: Sequence[Tensor], proposals: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits ``(n classes+1)`` and deltas ``(n classes*4)`` of all proposals."""
        return self.bbox_head(align_regions(maps, self.strides, proposals, BOX_SIDE))

    def masks_of(self, maps: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """Logits ``(n 28 28)`` of the masks of all regions, each for its class."""
        logits = self.mask_head(align_regions(maps, self.strides, boxes, MASK_SIDE))
        label = torch.cat(list(labels))
        return logits[torch.arange(len(label), device=label.device), label - 1]

    def losses(
        self, maps: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Cross-entropy of the classes, L1 of the deltas, cross-entropy of the masks."""
        regions, objects, labels, wanted = self.select_training_samples(list(proposals), list(targets))
        logits, deltas = self.boxes_of(maps, regions)
        label = torch.cat(labels)
        official = torch.where(label == 0, self.num_classes, label - 1)
        positive = (label > 0).nonzero()[:, 0]
        own = deltas.view(len(deltas), -1, 4)[positive, label[positive] - 1]
        box_loss = F.l1_loss(own, torch.cat(list(wanted))[positive], reduction="sum") / max(len(label), 1)
        mask_loss = self._mask_loss(maps, regions, objects, labels, targets)
        return {
            "loss_classifier": F.cross_entropy(logits, official),
            "loss_box_reg": box_loss,
            "loss_mask": mask_loss,
        }

    def _mask_loss(
        self,
        maps: Sequence[Tensor],
        regions: Sequence[Tensor],
        objects: Sequence[Tensor],
        labels: Sequence[Tensor],
        targets: Sequence[Target],
    ) -> Tensor:
        positive = [label > 0 for label in labels]
        boxes = [one[mine] for one, mine in zip(regions, positive, strict=True)]
        own = [one[mine] for one, mine in zip(labels, positive, strict=True)]
        logits = self.masks_of(maps, boxes, own)
        if len(logits) == 0:
            return logits.sum()  # 0, and every parameter has its gradient
        truth = [
            mask_targets(target["masks"], box, object_[mine], logits.shape[-1])
            for target, box, object_, mine in zip(targets, boxes, objects, positive, strict=True)
        ]
        return F.binary_cross_entropy_with_logits(logits, torch.cat(truth))

    def detect(
        self, maps: Sequence[Tensor], proposals: Sequence[Tensor], image_sizes: Sizes, original_sizes: Sizes
    ) -> list[dict[str, Tensor]]:
        """For each picture ``boxes (n 4)``, ``labels (n)``, ``scores (n)``, best first, in pixels of the original picture.

        Args:
            maps: ``(b c h w)``, the finest first.
            proposals: ``(n 4)`` of each picture, in pixels of what the network sees.
            image_sizes: height and width of what the network sees, without padding.
            original_sizes: height and width before resizing.
        """
        logits, deltas = self.boxes_of(maps, proposals)
        counts = [len(one) for one in proposals]
        boxes = self.box_coder.decode(deltas, list(proposals)).view(len(deltas), self.num_classes, 4).split(counts)
        scores = logits.softmax(-1)[:, :-1].split(counts)
        pictures = zip(boxes, scores, image_sizes, original_sizes, strict=True)
        return [self._detect_one(*picture) for picture in pictures]

    def _detect_one(
        self, boxes: Tensor, scores: Tensor, size: tuple[int, int], original: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Of the boxes ``(n classes 4)`` and scores ``(n classes)`` those that are detections."""
        boxes = clip_boxes_to_image(boxes, size) / scale_of(size, original, boxes)
        region, label = (scores > self.score_thresh).nonzero(as_tuple=True)
        chosen, score = boxes[region, label], scores[region, label]
        best = batched_nms(chosen, score, label, self.nms_thresh)[: self.detections_per_img]
        return {"boxes": chosen[best], "labels": label[best] + 1, "scores": score[best]}


def scale_of(size: tuple[int, int], original: tuple[int, int], like: Tensor) -> Tensor:
    """``(4)``: how much larger than the original a resized picture's x0, y0, x1, y1 are."""
    height, width = (new / old for new, old in zip(size, original, strict=True))
    return like.new_tensor([width, height, width, height])
