"""Masks of objects: from a picture into regions, and back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

THRESHOLD = 0.5  # a pixel of this probability belongs to the object


def mask_targets(masks: Tensor, boxes: Tensor, objects: Tensor, side: int) -> Tensor:
    """Targets of the mask head for each region: ``(n side side)`` float32, 0 or 1.

    Args:
        masks: ``(objects height width)`` of the picture.
        boxes: ``(n 4)`` regions in its pixels.
        objects: ``(n)`` the object of each region.
        side: of the head's masks.
    """
    rois = torch.cat([objects[:, None].to(boxes.dtype), boxes], 1)
    shown = roi_align(masks[:, None].to(boxes.dtype), rois, (side, side), sampling_ratio=0, aligned=True)
    return (shown[:, 0] >= THRESHOLD).to(boxes.dtype)


def paste_masks(probability: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks ``(n side side)`` of regions, put into a picture: ``(n height width)`` bool.

    The centre of each pixel is mapped into its box ``(n 4)``; values are interpolated between the mask's cells, and 0 outside.
    """
    height, width = size
    out = torch.zeros(len(boxes), height, width, dtype=torch.bool, device=probability.device)
    for mask, box, picture in zip(probability, boxes, out, strict=True):
        x0, y0, x1, y1 = box.tolist()
        left, top = max(int(x0) - 1, 0), max(int(y0) - 1, 0)
        right, bottom = min(int(x1) + 2, width), min(int(y1) + 2, height)
        if left >= right or top >= bottom:
            continue
        x = (torch.arange(left, right, device=box.device, dtype=box.dtype) + 0.5 - box[0]) / (box[2] - box[0])
        y = (torch.arange(top, bottom, device=box.device, dtype=box.dtype) + 0.5 - box[1]) / (box[3] - box[1])
        grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], -1) * 2 - 1
        shown = F.grid_sample(mask[None, None], grid[None], align_corners=False)
        picture[top:bottom, left:right] = shown[0, 0] >= THRESHOLD
    return out
