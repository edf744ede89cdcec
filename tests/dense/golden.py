"""The official outputs (golden/dense/README.md), and our models with the official weights that go with them."""

import json
from functools import cache
from pathlib import Path

from safetensors.torch import load_file

from skimba.dense import MaskRCNN, UperNet
from skimba.dense.necks import FPN
from skimba.dense.plain_mamba import PlainMambaAdapter, PlainMambaStages
from skimba.dense.proposals import ProposalRules
from skimba.dense.regions import HeadSizes, RegionRules
from skimba.models import PlainMamba

GOLDEN = Path(__file__).parents[1] / "golden" / "dense"
META = json.loads((GOLDEN / "meta.json").read_text())
SHAPES = json.loads((GOLDEN / "state_dict_shapes.json").read_text())
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
EVERYTHING = 10**6  # learned from


@cache
def golden(name):
    return load_file(GOLDEN / f"{name}.safetensors")


def classifier(sizes):
    model = PlainMamba(
        img_size=sizes["img_size"],
        patch_size=sizes["patch_size"],
        embed_dim=sizes["embed_dims"],
        depth=sizes["num_layers"],
        stem_convs=sizes["num_convs_patch_embed"],
        dwconv_blocks=sizes["layers_with_dwconv"],
        num_classes=1,
    )
    model.pretrained_cfg = IMAGENET
    return model


def load(model, name):
    state = {key.removeprefix("state."): value for key, value in golden(name).items() if key.startswith("state.")}
    model.load_state_dict(state)
    return model.eval()


def make_detector():
    sizes = META["mask_rcnn_micro"]["config"]
    backbone = PlainMambaAdapter(
        classifier(sizes), sizes["conv_inplane"], sizes["deform_num_heads"], sizes["n_points"], sizes["cffn_ratio"]
    )
    heads = HeadSizes(
        width=sizes["fpn_channels"],
        rpn=sizes["rpn_feat_channels"],
        box=sizes["box_conv_channels"],
        box_hidden=sizes["box_fc_channels"],
        mask=sizes["mask_conv_channels"],
    )
    detector = MaskRCNN(
        backbone,
        FPN(backbone.channels, backbone.strides, heads.width),
        sizes["num_classes"],
        heads,
        largest=None,
        proposal_rules=ProposalRules(
            candidates=(sizes["train_rpn_nms_pre"], sizes["test_rpn_nms_pre"]),
            proposals=(sizes["train_rpn_max_per_img"], sizes["test_rpn_max_per_img"]),
            learned=EVERYTHING,
        ),
        region_rules=RegionRules(detections=sizes["test_max_per_img"], learned=EVERYTHING),
    )
    return load(detector, "mask_rcnn_micro")


def make_segmenter():
    sizes = META["upernet_micro"]["config"]
    backbone = PlainMambaStages(classifier(sizes))
    segmenter = UperNet(backbone, sizes["num_classes"], sizes["head_channels"], sizes["aux_channels"], largest=None)
    return load(segmenter, "upernet_micro")


def relative_error(got, expected):
    assert got.shape == expected.shape
    return ((got - expected).norm() / expected.norm()).item()


def sizes_of(data, name):
    return [tuple(row) for row in data[name].tolist()]


def targets_of(data):
    """The objects of the fixed batch; 0 is the background here."""
    return [
        {
            "boxes": data[f"gt.{image}.boxes"],
            "labels": data[f"gt.{image}.labels"] + 1,
            "masks": data[f"gt.{image}.masks"].bool(),
        }
        for image in range(2)
    ]
