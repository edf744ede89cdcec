"""The dense models equal the official code: outputs of that code, made on CPU in float32 (golden/dense/README.md)."""

import pytest
import torch
from torchvision.models.detection.image_list import ImageList

import skimba
from skimba.dense.regions import align_regions, scale_of
from skimba.ops import default_backend
from tests.dense.golden import (
    META,
    SHAPES,
    golden,
    make_detector,
    make_segmenter,
    relative_error,
    sizes_of,
    targets_of,
)

DATA = golden("mask_rcnn_micro")
SEGMENTS = golden("upernet_micro")


@pytest.fixture(autouse=True)
def _reference_backend():
    with default_backend("reference"):
        yield


@pytest.fixture(scope="module")
def detector():
    return make_detector()


@pytest.fixture(scope="module")
def segmenter():
    return make_segmenter()


def test_adapter_and_pyramid_maps(detector):
    with torch.no_grad():
        adapter = detector.backbone.forward_maps(DATA["input"])
        pyramid = detector.neck(adapter)
        objectness, deltas = detector.rpn_head.predict(pyramid)
    named = {"adapter": adapter, "fpn": pyramid, "rpn.objectness": objectness, "rpn.deltas": deltas}
    assert [len(maps) for maps in named.values()] == [4, 5, 5, 5]
    for name, maps in named.items():
        for level, got in enumerate(maps):
            assert relative_error(got, DATA[f"{name}.{level}"]) < 1e-5, (name, level)


def test_anchors(detector):
    for level, base in enumerate(detector.rpn_head.anchor_generator.cell_anchors):
        assert torch.equal(base, DATA[f"rpn.base_anchors.{level}"])


def test_anchors_that_hold_an_object(detector):
    anchors = detector.rpn_head.anchor_generator([DATA[f"fpn.{level}"] for level in range(5)])
    labels, _ = detector.rpn_head.assign_targets_to_anchors([torch.cat(anchors)] * 2, targets_of(DATA))
    official = torch.cat([DATA[f"train.rpn_labels.{level}"] for level in range(5)], 1)
    assert torch.equal(torch.stack(labels), official.float())


def test_proposals_and_what_the_box_head_says(detector):
    with torch.no_grad():
        maps = detector.maps(DATA["input"])
        proposals, scores, losses = detector.rpn_head(maps, sizes_of(DATA, "image_sizes"))
        logits, deltas = detector.roi_head.boxes_of(maps[:-1], proposals)
    assert losses == {}
    for image in range(2):
        torch.testing.assert_close(proposals[image], DATA[f"proposals.{image}.boxes"], rtol=0, atol=0.01)
        torch.testing.assert_close(scores[image], DATA[f"proposals.{image}.scores"], rtol=0, atol=1e-5)
    assert relative_error(logits, torch.cat([DATA["box.logits.0"], DATA["box.logits.1"]])) < 1e-5
    assert relative_error(deltas, torch.cat([DATA["box.deltas.0"], DATA["box.deltas.1"]])) < 1e-5


@pytest.mark.parametrize(("name", "sizes"), [("det", "image_sizes"), ("orig", "ori_sizes")])
def test_detections_and_their_masks(detector, name, sizes):
    batch = ImageList(DATA["input"], sizes_of(DATA, "image_sizes"))
    with torch.no_grad():
        found = detector.detect(batch, sizes_of(DATA, sizes))
    assert len(found) == 2
    for image, got in enumerate(found):
        assert torch.equal(got["labels"] - 1, DATA[f"{name}.{image}.labels"])  # 0 is the background here
        torch.testing.assert_close(got["boxes"], DATA[f"{name}.{image}.boxes"], rtol=0, atol=0.01)
        torch.testing.assert_close(got["scores"], DATA[f"{name}.{image}.scores"], rtol=0, atol=1e-5)
        assert torch.equal(got["masks"][:, 0], DATA[f"{name}.{image}.masks"].bool())


def test_mask_logits(detector):
    labels = [DATA[f"det.{image}.labels"] + 1 for image in range(2)]
    with torch.no_grad():
        maps = detector.maps(DATA["input"])[:-1]
        logits = detector.roi_head.masks_of(maps, [DATA["det.0.boxes"], DATA["det.1.boxes"]], labels)
    assert relative_error(logits, torch.cat([DATA["det.0.mask_logits"], DATA["det.1.mask_logits"]])) < 1e-5


@pytest.mark.parametrize(("side", "rows"), [(7, range(12)), (14, (0, 3, 7))])
def test_regions_of_all_levels(side, rows):
    rois, maps = DATA["roi_align.rois"][list(rows)], [DATA[f"fpn.{level}"] for level in range(4)]
    order = rois[:, 0].argsort(stable=True)
    boxes = [rois[rois[:, 0] == image][:, 1:] for image in (0, 1)]
    got = align_regions(maps, (4, 8, 16, 32), boxes, side)
    assert relative_error(got, DATA[f"roi_align.out{side}"][order]) < 1e-5


def test_losses_and_gradients_of_a_fixed_batch():
    """All in evaluation mode but the limits of the proposals, as the official outputs were made."""
    detector = make_detector()
    detector.rpn_head.training = True
    losses = detector.losses(ImageList(DATA["input"], sizes_of(DATA, "image_sizes")), targets_of(DATA))
    names = {
        "loss_objectness": "rpn_cls",
        "loss_rpn_box_reg": "rpn_bbox",
        "loss_classifier": "cls",
        "loss_box_reg": "bbox",
        "loss_mask": "mask",
    }
    assert losses.keys() == names.keys()
    for name, official in names.items():
        expected = META["mask_rcnn_micro"]["made"]["losses"][official]
        assert losses[name].item() == pytest.approx(expected, rel=1e-4), name
    sum(losses.values()).backward()
    parameters = dict(detector.named_parameters())
    for name in META["mask_rcnn_micro"]["gradients_stored"]:
        assert relative_error(parameters[name].grad, DATA[f"train.grad.{name}"]) < 1e-4, name


def test_regions_that_the_second_stage_learns_from(detector):
    proposals = [DATA[f"train.proposals.{image}.boxes"] for image in range(2)]
    regions, objects, labels, _ = detector.roi_head.select_training_samples(proposals, targets_of(DATA))
    positive = [label > 0 for label in labels]  # officially these come first
    order = [torch.cat([mine.nonzero()[:, 0], (~mine).nonzero()[:, 0]]) for mine in positive]
    rois = torch.cat([region[index] for region, index in zip(regions, order, strict=True)])
    label = torch.cat([one[index] for one, index in zip(labels, order, strict=True)])
    torch.testing.assert_close(rois, DATA["train.rois"][:, 1:], rtol=0, atol=1e-4)
    assert torch.equal(torch.where(label == 0, detector.num_classes, label - 1), DATA["train.labels"])
    chosen = torch.cat([one[mine] for one, mine in zip(objects, positive, strict=True)])
    assert torch.equal(chosen, DATA["train.pos_gt"])


def test_segmenter_maps_and_logits(segmenter):
    with torch.no_grad():
        maps = segmenter.backbone.forward_maps(SEGMENTS["input"])
        for stage, got in enumerate(maps):
            assert relative_error(got, SEGMENTS[f"feature.{stage}"]) < 1e-5
        assert relative_error(segmenter.decode_head(maps), SEGMENTS["decode.logits"]) < 1e-5
        assert relative_error(segmenter.auxiliary_head(maps[-1]), SEGMENTS["aux.logits"]) < 1e-5
        logits = segmenter.logits(SEGMENTS["input"])
        original = segmenter.segment(SEGMENTS["input"], tuple(SEGMENTS["orig.pred"].shape[1:]))
    assert relative_error(logits, SEGMENTS["logits"]) < 1e-5
    assert torch.equal(logits.argmax(1).to(torch.uint8), SEGMENTS["pred"])
    assert relative_error(original[:1], SEGMENTS["orig.logits.0"]) < 1e-5
    assert torch.equal(original.argmax(1).to(torch.uint8), SEGMENTS["orig.pred"])


def test_segmenter_at_an_odd_size(segmenter):
    with torch.no_grad():
        maps = segmenter.backbone.forward_maps(SEGMENTS["odd.input"])
        for stage, got in enumerate(maps):
            assert relative_error(got, SEGMENTS[f"odd.feature.{stage}"]) < 1e-5
        assert relative_error(segmenter.decode_head(maps), SEGMENTS["odd.decode.logits"]) < 1e-5
        assert relative_error(segmenter.logits(SEGMENTS["odd.input"]), SEGMENTS["odd.logits"]) < 1e-5


def test_segmenter_losses_and_gradients():
    segmenter = make_segmenter()
    losses = segmenter.losses(SEGMENTS["input"], SEGMENTS["label"])
    assert losses["loss_decode"].item() == pytest.approx(SEGMENTS["loss.decode"].item(), rel=1e-4)
    assert losses["loss_auxiliary"].item() == pytest.approx(SEGMENTS["loss.aux"].item(), rel=1e-4)
    sum(losses.values()).backward()
    parameters = dict(segmenter.named_parameters())
    for name in META["upernet_micro"]["gradients_stored"]:
        assert relative_error(parameters[name].grad, SEGMENTS[f"grad.{name}"]) < 1e-4, name


def test_the_segmenter_takes_pictures_in_0_to_1(segmenter):
    with torch.no_grad():
        found = segmenter([SEGMENTS[f"image.{image}"].permute(2, 0, 1) / 255 for image in range(2)])
    for image, got in enumerate(found):
        assert relative_error(got["logits"], SEGMENTS["logits"][image]) < 1e-5
        assert torch.equal(got["classes"].to(torch.uint8), SEGMENTS["pred"][image])


def test_the_detector_normalises_and_pads_pictures_in_0_to_1(detector):
    batch, _ = detector.pictures([DATA[f"image.{image}"].permute(2, 0, 1) / 255 for image in range(2)])
    assert batch.image_sizes == sizes_of(DATA, "image_sizes")
    torch.testing.assert_close(batch.tensors, DATA["input"], rtol=0, atol=1e-5)


def test_scale_of_a_resized_picture():
    for image in range(2):
        sizes = (sizes_of(DATA, name)[image] for name in ("image_sizes", "ori_sizes"))
        assert torch.equal(scale_of(*sizes, torch.zeros(1)), DATA["scale_factors"][image])


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(("task", "make"), [("mask_rcnn", skimba.mask_rcnn), ("upernet", skimba.upernet)])
def test_state_dict_has_the_official_names_and_shapes(task, make, number):
    with torch.device("meta"):
        model = make(f"plain_mamba_l{number}")
    expected = SHAPES[f"{task}_l{number}"]
    assert {name: list(tensor.shape) for name, tensor in model.state_dict().items()} == expected["shapes"]
    assert sum(parameter.numel() for parameter in model.parameters()) == expected["parameters"]
