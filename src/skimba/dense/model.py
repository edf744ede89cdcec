"""What every dense model is: a backbone that can be pruned, and the heads that read its maps."""

from __future__ import annotations

from torch import Tensor, nn

from skimba.dense.backbones import DenseBackbone


class DenseModel(nn.Module):
    """A detector or a segmenter.

    Attributes:
        backbone: a model without a head; what :func:`skimba.prune` prunes.
        num_classes: classes that it tells apart (of objects: without the background).
    """

    backbone: DenseBackbone
    num_classes: int

    def forward_counted(self, images: Tensor) -> None:
        """Everything that costs, for a batch ``(b c height width)`` that may have no data: what ``count_flops`` counts.

        Where the cost depends on what is found, as much is done as the published figures assume.
        """
        raise NotImplementedError

    @property
    def img_size(self) -> tuple[int, int]:
        """Height and width of the picture that costs are counted on if none is given."""
        raise NotImplementedError
