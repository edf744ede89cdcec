"""The region proposal network: which anchors may hold an object, and how they move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers

from skimba.dense.boxes import BestMatcher, ClampedBoxCoder, CornerAnchors
from skimba.dense.parts import at_least_float32

Target = dict[str, Tensor]


@dataclass(frozen=True)
class ProposalRules:
    """How proposals are chosen and learned from; the defaults are the official ones.

    Attributes:
        candidates: best anchors of each map that go on to the suppression, while (training, testing).
        proposals: most proposals of a picture, while (training, testing).
        overlap: above this intersection over union, the lower scored of two proposals of one map goes.
        learned: anchors of a picture that the loss reads.
        positive_share: at most, of those.
    """

    candidates: tuple[int, int] = (2000, 1000)
    proposals: tuple[int, int] = (1000, 1000)
    overlap: float = 0.7
    learned: int = 256
    positive_share: float = 0.5


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's, with mmdetection's anchors, matches and losses. Parameter names are those of the official checkpoints.

    Args:
        width: channels of the maps.
        hidden: channels of its own convolution.
        anchors: where anchors stand.
        rules: see :class:`ProposalRules`.
    """

    def __init__(self, width: int, hidden: int, anchors: CornerAnchors, rules: ProposalRules) -> None:
        training, testing = ({"training": pair[0], "testing": pair[1]} for pair in (rules.candidates, rules.proposals))
        super().__init__(anchors, None, 0.7, 0.3, rules.learned, rules.positive_share, training, testing, rules.overlap)
        self.min_size = torch.finfo(torch.float32).tiny  # a box of no area goes, and no other
        self.box_coder = ClampedBoxCoder((1.0, 1.0, 1.0, 1.0))
        self.proposal_matcher = BestMatcher(0.7, 0.3, least=0.3)
        (per_cell,) = set(anchors.num_anchors_per_location())
        self.rpn_conv = nn.Conv2d(width, hidden, 3, padding=1)
        self.rpn_cls = nn.Conv2d(hidden, per_cell, 1)
        self.rpn_reg = nn.Conv2d(hidden, per_cell * 4, 1)
        for conv in (self.rpn_conv, self.rpn_cls, self.rpn_reg):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def predict(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """For each map ``(b c h w)``: logits ``(b anchors h w)`` that an anchor holds an object, deltas ``(b anchors*4 h w)``."""
        hidden = [F.relu(self.rpn_conv(one)) for one in maps]
        logits = [at_least_float32(self.rpn_cls(one)) for one in hidden]
        return logits, [at_least_float32(self.rpn_reg(one)) for one in hidden]

    def forward(
        self, maps: Sequence[Tensor], image_sizes: Sequence[tuple[int, int]], targets: Sequence[Target] | None = None
    ) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
        """Proposals ``(n 4)`` of each picture, best first, their scores, and in training the losses.

        Args:
            maps: ``(b c h w)``, the finest first.
            image_sizes: height and width of each picture without its padding.
            targets: ``boxes (n 4)`` of each picture, in training.
        """
        logits, deltas = self.predict(maps)
        anchors = self.anchor_generator(maps)
        counts = [len(part) for part in anchors]
        every = [torch.cat(anchors)] * len(image_sizes)
        objectness, flat = concat_box_prediction_layers(list(logits), list(deltas))
        boxes = self.box_coder.decode(flat.detach(), every).view(len(image_sizes), -1, 4)
        found, scores = self.filter_proposals(boxes, objectness, list(image_sizes), counts)
        if not self.training or targets is None:
            return found, scores, {}
        labels, matched = self.assign_targets_to_anchors(every, list(targets))
        wanted = self.box_coder.encode(matched, every)
        objectness_loss, box_loss = self.compute_loss(objectness, flat, labels, wanted)
        return found, scores, {"loss_objectness": objectness_loss, "loss_rpn_box_reg": box_loss}

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy and L1, each summed and divided by the number of anchors that are learned from."""
        positive, negative = (torch.cat(masks).nonzero()[:, 0] for masks in self.fg_bg_sampler(labels))
        sampled = torch.cat([positive, negative])
        share = 1 / max(len(sampled), 1)
        wanted = torch.cat(regression_targets)[positive]
        box_loss = F.l1_loss(pred_bbox_deltas[positive], wanted, reduction="sum") * share
        truth = torch.cat(labels)[sampled]
        logits = objectness.flatten()[sampled]
        return F.binary_cross_entropy_with_logits(logits, truth, reduction="sum") * share, box_loss
