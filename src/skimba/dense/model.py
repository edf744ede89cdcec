"""What every dense model is: a backbone that can be pruned, and the heads that read its maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor

from skimba.dense.backbones import DenseBackbone
from skimba.dense.pictures import FitPictures
from skimba.models import Reducer, TokenModel, with_reducer
from skimba.models.sharing import SharedWeights, shared_twin


class DenseModel(SharedWeights):
    """A detector or a segmenter.

    Attributes:
        backbone: a model without a head; what :func:`skimba.prune` prunes.
        pictures: how pictures become a batch.
        num_classes: classes that it tells apart (of objects: without the background).
        task: what it is for: a key of :data:`skimba.tasks.TASKS`.
        made: its ``kind``, the name of the ``model`` and the ``sizes`` it was made with; empty if it was put together by hand.
    """

    backbone: DenseBackbone
    pictures: FitPictures
    num_classes: int
    task: str
    made: Mapping[str, Any] = {}

    def forward_counted(self, images: Tensor) -> None:
        """Everything that costs, for a batch ``(b c height width)`` that may have no data: what ``count_flops`` counts.

        Where the cost depends on what is found, as much is done as the published figures assume.
        """
        raise NotImplementedError

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that an optimiser should not decay."""
        return {f"backbone.{name}" for name in self.backbone.no_weight_decay()}

    def part_of(self, name: str) -> str:
        """The part of the model that a module belongs to, by its name: ``"backbone"``, ``"adapter"`` beside it, or a head."""
        top, _, rest = name.partition(".")
        if top == "backbone":
            return "adapter" if rest.split(".")[0] in self.backbone.beside else top
        return "backbone" if top == "reducer" else top

    @property
    def img_size(self) -> tuple[int, int]:
        """Height and width of the picture that costs are counted on if none is given."""
        raise NotImplementedError


Dense = TypeVar("Dense", bound=DenseModel)


def with_backbone(model: Dense, backbone: DenseBackbone) -> Dense:
    """A model with the same heads, on the same weights, and another backbone; the one given stays as it is."""
    twin = shared_twin(model)
    twin.backbone = backbone
    return twin


def tokens_of(model: TokenModel | DenseModel) -> TokenModel:
    """The model whose tokens a reducer takes out: a dense model's backbone, or the model itself."""
    return model.backbone if isinstance(model, DenseModel) else model


Model = TypeVar("Model", bound=TokenModel | DenseModel)


def with_inner_reducer(model: Model, reducer: Reducer | None) -> Model:
    """A model on the same weights with another reducer, in its backbone if it is a dense one; the one given stays as it is."""
    if isinstance(model, DenseModel):
        return with_backbone(model, with_reducer(model.backbone, reducer))
    return with_reducer(model, reducer)
