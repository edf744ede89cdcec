"""Detectors and segmenters by name: which backbone, which sizes, whose weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from skimba.data import ADE20K_CLASSES, CLASSES
from skimba.data.scene_targets import BACKGROUND
from skimba.dense.any_model import last_map, stage_maps
from skimba.dense.backbones import DenseBackbone
from skimba.dense.loading import load_dense
from skimba.dense.mask_rcnn import OFFICIAL_HEADS, OFFICIAL_PROPOSALS, OFFICIAL_REGIONS, MaskRCNN
from skimba.dense.model import DenseModel
from skimba.dense.necks import FPN, SimplePyramid
from skimba.dense.plain_mamba import PlainMambaAdapter, PlainMambaStages
from skimba.dense.proposals import ProposalRules
from skimba.dense.regions import HeadSizes, RegionRules
from skimba.dense.upernet import UperNet
from skimba.models import PlainMamba, TokenModel
from skimba.models.registry import list_models, named_model
from skimba.models.variants import HubFile, Source, fetch
from skimba.tokens import Restore, start_restore

IMAGENET = "imagenet"  # weights of the backbone alone, from classification
OBJECTS = {"coco": 80, "scenes": 10}  # classes that the weights of a data set tell apart
AREAS = {"ade20k": 150, "scenes": 11}  # the same of a segmenter; scenes with their background
# Of their classes, where they are known.
NAMES = {
    ("mask_rcnn", "scenes"): CLASSES,
    ("upernet", "scenes"): (BACKGROUND, *CLASSES),
    ("upernet", "ade20k"): ADE20K_CLASSES,
}
# Names begin so of the parameters whose shape follows the number of classes.
BY_CLASS = (
    "roi_head.bbox_head.fc_",
    "roi_head.mask_head.conv_logits.",
    "decode_head.conv_seg.",
    "auxiliary_head.conv_seg.",
)
MICRO_SCENES = {"img_size": 128, "patch_size": 8, "num_classes": 1}  # 256 tokens of a fashion scene


@dataclass(frozen=True)
class Variant:
    """A detector or segmenter as its name stands for it.

    Attributes:
        model: the classifier whose blocks it has, by name.
        sizes: of that classifier, where they differ.
        weights: for each data set that weights were trained on, where they are.
        heads: of the deformable attention; 0: no adapter but a simple pyramid.
        prior_width: channels of the adapter's spatial prior.
        largest: pictures are resized to fit into (short side, long side); None: left as they are.
        head_sizes: of a detector.
        width, auxiliary_width: of a segmenter's heads.
        anchor_scale: side of a detector's anchors, in strides.
        proposal_rules, region_rules: how a detector chooses proposals and detections and learns from them.
    """

    model: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Source] = field(default_factory=dict)
    heads: int = 0
    prior_width: int = 64
    largest: tuple[int, int] | None = None
    head_sizes: HeadSizes = OFFICIAL_HEADS
    width: int = 512
    auxiliary_width: int = 256
    anchor_scale: float = 8
    proposal_rules: ProposalRules = OFFICIAL_PROPOSALS
    region_rules: RegionRules = OFFICIAL_REGIONS


def mask_rcnn(
    name: str,
    num_classes: int | None = None,
    pretrained: str | None = None,
    checkpoint: str | Path | None = None,
    restore: str | Callable[[], Restore] = "auto",
    **sizes: Any,
) -> MaskRCNN:
    """A Mask R-CNN on one of the models.

    Args:
        name: ``"plain_mamba_l1"``, ``l2``, ``l3`` (as the official detectors: ViT-Adapter and FPN), ``"plain_mamba_micro"``,
            ``"vim_micro"`` (for fashion scenes), or any of :func:`skimba.list_models`, with ViTDet's simple pyramid; for those no
            published weights exist.
        num_classes: classes of objects, without the background; those of the weights, or 80, if None.
        pretrained: ``"coco"`` (the official detectors), ``"imagenet"`` (the backbone's weights from classification) or None.
            With another ``num_classes`` than the weights have, the layers of the classes start afresh.
        checkpoint: load these weights instead.
        restore: how positions are shown whose token was pruned: a key of :data:`skimba.tokens.RESTORE` or a function like
            those in it. It is also an attribute, ``model.backbone.restore``.
        sizes: of the backbone, for instance ``drop_path_rate=0.2``; ``largest=None`` leaves pictures as large as they are.

    Raises:
        ValueError: an unknown name, weights that do not exist for it, both ``pretrained`` and ``checkpoint``, or weights that do
            not fit.
        ConnectionError, FileNotFoundError: weights that are unavailable.
    """
    asked = _asked(num_classes, OBJECTS.get(pretrained or "", 80), restore, sizes)
    variant, model = _model(name, DETECTORS, pretrained, checkpoint, sizes)
    backbone: DenseBackbone
    neck: FPN | SimplePyramid
    if variant.heads and isinstance(model, PlainMamba):
        backbone = PlainMambaAdapter(
            model, variant.prior_width, variant.heads, drop_path=variant.sizes.get("drop_path_rate", 0.0)
        )
        neck = FPN(backbone.channels, backbone.strides, variant.head_sizes.width)
    else:
        backbone = last_map(model)
        neck = SimplePyramid(backbone.channels[0], backbone.strides[0], variant.head_sizes.width)
    detector = MaskRCNN(
        backbone, neck, asked["num_classes"], variant.head_sizes, variant.anchor_scale, variant.largest,
        variant.proposal_rules, variant.region_rules,
    )  # fmt: skip
    detector.made = {"kind": "mask_rcnn", "model": name, "sizes": asked}
    return _finished(detector, variant, pretrained, checkpoint, num_classes, restore)


def upernet(
    name: str,
    num_classes: int | None = None,
    pretrained: str | None = None,
    checkpoint: str | Path | None = None,
    restore: str | Callable[[], Restore] = "auto",
    **sizes: Any,
) -> UperNet:
    """A UperNet on one of the models.

    Args:
        name: ``"plain_mamba_l1"``, ``l2``, ``l3`` (as the official segmenters), ``"plain_mamba_micro"``, ``"vim_micro"`` (for
            fashion scenes), or any of :func:`skimba.list_models`; for those no published weights exist.
        num_classes: classes of a pixel; those of the weights, or 150, if None.
        pretrained: ``"ade20k"`` (the official segmenters), ``"imagenet"`` (the backbone's weights from classification) or None.
            With another ``num_classes`` than the weights have, the layers of the classes start afresh.
        checkpoint: load these weights instead.
        restore: how positions are shown whose token was pruned, as for :func:`mask_rcnn`.
        sizes: of the backbone, for instance ``drop_path_rate=0.2``; ``largest=None`` leaves pictures as large as they are.

    Raises:
        ValueError, ConnectionError, FileNotFoundError: as :func:`mask_rcnn`.
    """
    asked = _asked(num_classes, AREAS.get(pretrained or "", 150), restore, sizes)
    variant, model = _model(name, SEGMENTERS, pretrained, checkpoint, sizes)
    backbone = PlainMambaStages(model) if isinstance(model, PlainMamba) else stage_maps(model)
    segmenter = UperNet(backbone, asked["num_classes"], variant.width, variant.auxiliary_width, largest=variant.largest)
    segmenter.made = {"kind": "upernet", "model": name, "sizes": asked}
    return _finished(segmenter, variant, pretrained, checkpoint, num_classes, restore)


def _asked(
    num_classes: int | None, default: int, restore: str | Callable[[], Restore], sizes: dict[str, Any]
) -> dict[str, Any]:
    """What the model is made with beside its name, as :func:`skimba.save_model` writes it."""
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"num_classes must be 1 or more, got {num_classes}")
    return {"num_classes": num_classes or default, "restore": restore, **sizes}


def _model(
    name: str,
    variants: Mapping[str, Variant],
    pretrained: str | None,
    checkpoint: str | Path | None,
    sizes: dict[str, Any],
) -> tuple[Variant, TokenModel]:
    """The variant of that name with the sizes asked for, and its classifier, with the weights of classification if asked for."""
    variant = variants.get(name) or replace(variants[ANY], model=name)
    if pretrained is not None and checkpoint is not None:
        raise ValueError(f"give pretrained={pretrained!r} or checkpoint=PATH, not both")
    if pretrained not in (None, IMAGENET, *variant.weights):
        known = ", ".join([*variant.weights, IMAGENET])
        raise ValueError(f"no weights {pretrained!r} are published for this model of {name}; known: {known}")
    if "largest" in sizes:
        largest = sizes["largest"]
        variant = replace(variant, largest=None if largest is None else tuple(largest))
    sizes = {key: value for key, value in sizes.items() if key != "largest"}
    variant = replace(variant, sizes={**variant.sizes, **sizes})
    model = named_model(variant.model, pretrained == IMAGENET, **variant.sizes)
    if model.task != TokenModel.task:
        raise ValueError(f"{name} takes {model.task}: a detector or segmenter needs a model of pictures")
    return variant, model


def names_of(kind: str) -> list[str]:
    """Names that :func:`mask_rcnn` (kind ``"mask_rcnn"``) or :func:`upernet` (``"upernet"``) knows."""
    return sorted({*VARIANTS[kind].keys() - {ANY}, *list_models()})


def check_asked(kind: str, name: str, asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The classifier and its sizes that a model would be made of; nothing is built.

    Raises:
        ValueError: a number of classes, a restore or a size of pictures that cannot be.
    """
    sizes = dict(asked)
    count, restore, largest = sizes.pop("num_classes", None), sizes.pop("restore", "auto"), sizes.pop("largest", None)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"num_classes must be 1 or more, got {count!r}")
    start_restore(restore)
    sides = [largest] if not isinstance(largest, list | tuple) or len(largest) != 2 else list(largest)
    if largest is not None and not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"largest must be two whole numbers of pixels, or None, got {largest!r}")
    variant = VARIANTS[kind].get(name) or replace(VARIANTS[kind][ANY], model=name)
    return variant.model, {**variant.sizes, **sizes}


Dense = TypeVar("Dense", bound=DenseModel)


def _finished(
    model: Dense,
    variant: Variant,
    pretrained: str | None,
    checkpoint: str | Path | None,
    num_classes: int | None,
    restore: str | Callable[[], Restore],
) -> Dense:
    """The model with its restore and its weights; the layers of the classes may start afresh if their number was asked for."""
    start_restore(restore)  # an unknown key is told now
    model.backbone.restore = restore
    source = checkpoint if pretrained in (None, IMAGENET) else fetch(variant.weights[pretrained])
    if source is not None:
        load_dense(model, source, fresh=() if num_classes is None else BY_CLASS)
    names = NAMES.get((model.made["kind"], pretrained or ""), ())
    if len(names) == model.num_classes:
        model.backbone.pretrained_cfg |= {"label_names": names}
    return model


def _official(task: str, number: int) -> HubFile:
    path = {"coco": f"detection/maskrcnn/l{number}_1x.pth", "ade20k": f"segmentation/l{number}_upernet.pth"}
    return HubFile("ChenhongyiYang/PlainMamba", path[task])


ANY = "any"  # how a model is used that has no line of its own
_MICRO_HEADS = HeadSizes(width=48, rpn=48, box=48, box_hidden=96, mask=48)
# A scene has up to four items: few proposals hold them all, and cost a hundredth of the official thousand.
_MICRO_PROPOSALS = ProposalRules(candidates=(100, 50), proposals=(100, 50), learned=64)
_MICRO_REGIONS = RegionRules(detections=20, learned=32)
DETECTORS = {
    **{
        f"plain_mamba_l{number}": Variant(
            f"plain_mamba_l{number}",
            {"drop_path_rate": drop_path},
            {"coco": _official("coco", number)},
            heads,
            largest=(800, 1333),
        )
        for number, heads, drop_path in ((1, 6, 0.1), (2, 6, 0.2), (3, 8, 0.3))
    },
    "plain_mamba_micro": Variant(
        "plain_mamba_micro_patch4_56",
        MICRO_SCENES,
        {"scenes": "mask_rcnn_plain_mamba_micro.safetensors"},
        heads=4,
        prior_width=16,
        head_sizes=_MICRO_HEADS,
        anchor_scale=4,
        proposal_rules=_MICRO_PROPOSALS,
        region_rules=_MICRO_REGIONS,
    ),
    "vim_micro": Variant(
        "vim_micro_patch4_56",
        MICRO_SCENES,
        {"scenes": "mask_rcnn_vim_micro.safetensors"},
        head_sizes=_MICRO_HEADS,
        anchor_scale=8,
        proposal_rules=_MICRO_PROPOSALS,
        region_rules=_MICRO_REGIONS,
    ),
    ANY: Variant("", largest=(800, 1333)),
}
SEGMENTERS = {
    **{
        f"plain_mamba_l{number}": Variant(
            f"plain_mamba_l{number}",
            {"drop_path_rate": drop_path},
            {"ade20k": _official("ade20k", number)},
            largest=(512, 2048),
        )
        for number, drop_path in ((1, 0.1), (2, 0.2), (3, 0.3))
    },
    "plain_mamba_micro": Variant(
        "plain_mamba_micro_patch4_56",
        MICRO_SCENES,
        {"scenes": "upernet_plain_mamba_micro.safetensors"},
        width=64,
        auxiliary_width=32,
    ),
    "vim_micro": Variant(
        "vim_micro_patch4_56", MICRO_SCENES, {"scenes": "upernet_vim_micro.safetensors"}, width=64, auxiliary_width=32
    ),
    ANY: Variant("", largest=(512, 2048)),
}
VARIANTS = {"mask_rcnn": DETECTORS, "upernet": SEGMENTERS}
