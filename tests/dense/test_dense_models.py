"""Detectors and segmenters as their users meet them: any pictures, checked targets, losses and detections."""

import json

import pytest
import torch

import skimba
from skimba.dense.masks import mask_targets, paste_masks
from skimba.dense.pictures import fit, padded
from skimba.tokens import RESTORE
from tests.conftest import randomise
from tests.dense.conftest import SIZES

DETECTION_LOSSES = {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask"}


def test_detections_are_in_pixels_of_the_picture_given(detector, pictures):
    with torch.no_grad():
        found = detector(pictures)
    assert len(found) == 2
    for got, picture in zip(found, pictures, strict=True):
        count, (height, width) = len(got["boxes"]), picture.shape[1:]
        assert count > 0
        assert got["boxes"].shape == (count, 4)
        assert got["scores"].shape == got["labels"].shape == (count,)
        assert got["masks"].shape == (count, 1, height, width)
        assert got["masks"].dtype == torch.bool
        assert (got["boxes"] >= 0).all()
        assert (got["boxes"] <= torch.tensor([width, height, width, height])).all()
        assert got["labels"].min() >= 1
        assert got["labels"].max() <= 3
        assert (got["scores"].diff() <= 0).all()


def test_a_batch_is_a_list_of_its_pictures(detector):
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = detector(images), detector(list(images))
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_detector_losses_reach_every_parameter(detector, pictures, objects):
    losses = detector.train()(pictures, objects)
    assert losses.keys() == DETECTION_LOSSES
    sum(losses.values()).backward()
    without = {name for name, p in detector.named_parameters() if p.grad is None or not p.grad.isfinite().all()}
    assert not without


def test_targets_are_left_as_they_are(detector, pictures, objects):
    before = [{name: tensor.clone() for name, tensor in target.items()} for target in objects]
    detector.pictures.largest = (96, 128)
    detector.train()(pictures, objects)
    for got, expected in zip(objects, before, strict=True):
        assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_a_background_picture_alone_trains(detector, pictures, objects):
    losses = detector.train()(pictures[1:], objects[1:])
    assert losses["loss_mask"] == losses["loss_box_reg"] == losses["loss_rpn_box_reg"] == 0
    total = sum(losses.values())
    total.backward()
    assert total.isfinite()


def coloured():
    """A picture of a red and a green rectangle, and what is in it."""
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 4:30, 6:40] = masks[1, 35:60, 20:50] = True
    boxes = torch.tensor([[6.0, 4.0, 40.0, 30.0], [20.0, 35.0, 50.0, 60.0]])
    picture = torch.stack([masks[0].float(), masks[1].float(), torch.full((64, 64), 0.3)])
    return picture, {"boxes": boxes, "labels": torch.tensor([1, 3]), "masks": masks}


def falls(model, images, targets, steps, rate):
    """Sum of the losses at the last step, as a share of that at the first."""
    optimiser = torch.optim.AdamW(model.train().parameters(), rate)
    totals = []
    for _ in range(steps):
        optimiser.zero_grad()
        total = sum(model(images, targets).values())
        total.backward()
        optimiser.step()
        totals.append(total.item())
    return totals[-1] / totals[0]


@pytest.mark.parametrize("name", ["plain_mamba_micro", "vim_micro"])
def test_a_tiny_training_of_a_detector_learns(name):
    torch.manual_seed(0)
    picture, target = coloured()
    assert falls(skimba.mask_rcnn(name, 3, img_size=64, depth=4), [picture], [target], steps=40, rate=2e-3) < 0.4


@pytest.mark.parametrize("name", ["plain_mamba_micro", "vim_micro"])
def test_a_tiny_training_of_a_segmenter_learns(name):
    torch.manual_seed(0)
    picture, target = coloured()
    classes = target["masks"][0].long() + 2 * target["masks"][1]
    model = skimba.upernet(
        name, 3, img_size=64, depth=4
    )  # its pooled map of one pixel needs two pictures for BatchNorm
    assert falls(model, [picture] * 2, [classes] * 2, steps=20, rate=4e-3) < 0.4


def test_pictures_are_resized_for_the_network_and_found_in_their_own_pixels(detector, pictures):
    detector.pictures.largest = (96, 128)
    batch, _ = detector.pictures(pictures)
    assert batch.image_sizes == [(96, 96), (89, 128)]
    assert batch.tensors.shape[2] % 32 == batch.tensors.shape[3] % 32 == 0
    with torch.no_grad():
        found = detector(pictures)
    assert [got["masks"].shape[2:] for got in found] == [(64, 64), (50, 72)]


def test_the_new_size_is_mmdetections():
    assert fit((480, 640), (800, 1333)) == (800, 1067)  # not 1066, as torchvision rounds
    assert fit((427, 640), (800, 1333)) == (800, 1199)
    assert fit((300, 1000), (800, 1333)) == (400, 1333)
    assert fit((300, 1000), None) == (300, 1000)
    assert padded((400, 1333), 32) == (416, 1344)


def test_segments_are_in_pixels_of_the_picture_given(segmenter, pictures):
    with torch.no_grad():
        found = segmenter(pictures)
    for got, picture in zip(found, pictures, strict=True):
        assert got["classes"].shape == picture.shape[1:]
        assert got["logits"].shape == (3, *picture.shape[1:])
        assert torch.equal(got["logits"].argmax(0), got["classes"])


@pytest.mark.parametrize("size", [(9, 40), (33, 65), (64, 8)])
def test_any_picture_size_runs(dense_model, size):
    with torch.no_grad():
        (found,) = dense_model([torch.rand(3, *size)])
    assert next(reversed(found.values())).shape[-2:] == size


def test_segmenter_losses_reach_every_parameter(segmenter, pictures):
    classes = torch.randint(3, (2, 64, 64), generator=torch.Generator().manual_seed(0))
    classes[0, :10] = 255
    losses = segmenter.train()([pictures[0]] * 2, classes)
    assert losses.keys() == {"loss_decode", "loss_auxiliary"}
    sum(losses.values()).backward()
    without = {name for name, p in segmenter.named_parameters() if p.grad is None or not p.grad.isfinite().all()}
    assert not without


def test_ignored_pixels_do_not_count(segmenter):
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ignored = torch.full((1, 64, 64), 255, dtype=torch.uint8)
    losses = segmenter.losses(images, ignored)
    assert losses["loss_decode"] == 0


def change(target, **parts):
    return {**target, **parts}


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (
            {"boxes": torch.tensor([[6.0, 4, 80, 30], [20, 35, 50, 60]])},
            "box 0 is .* inside the picture, which is 64 px",
        ),
        ({"boxes": torch.tensor([[6.0, 4, 40, 30], [20, 35, 20, 60]])}, "box 1 is .*x0 < x1"),
        ({"boxes": torch.tensor([[6.0, 4, float("nan"), 30], [20, 35, 50, 60]])}, "box 0 is"),
        ({"boxes": torch.zeros(2, 5)}, r"boxes must be \(n 4\) floating point, got \(2, 5\)"),
        ({"boxes": torch.zeros(2, 4, dtype=torch.int64)}, "floating point, got .*int64"),
        ({"labels": torch.tensor([1, 4])}, "label 1 is 4: labels go from 1 to 3, 0 is the background"),
        ({"labels": torch.tensor([0, 1])}, "label 0 is 0"),
        ({"labels": torch.tensor([1.0, 2.0])}, r"labels must be \(2\) int64, got \(2,\) torch.float32"),
        ({"labels": torch.tensor([1])}, r"labels must be \(2\) int64"),
        ({"masks": torch.zeros(2, 32, 32, dtype=torch.bool)}, r"masks must be \(2, 64, 64\) .*got \(2, 32, 32\)"),
        ({"masks": torch.zeros(1, 64, 64, dtype=torch.bool)}, r"got \(1, 64, 64\)"),
        ({"masks": torch.zeros(2, 64, 64)}, "bool or uint8, .*torch.float32"),
        ({"masks": None}, "got no masks"),
    ],
)
def test_targets_of_a_wrong_form_are_named(detector, pictures, objects, parts, says):
    detector.train().backbone.forward_maps = None  # before any work
    with pytest.raises(ValueError, match=f"target 0: .*{says}"):
        detector(pictures, [change(objects[0], **parts), objects[1]])


@pytest.mark.parametrize("target", [None, [1, 2]])
def test_a_target_that_is_no_table_is_named(detector, pictures, target):
    with pytest.raises(ValueError, match=r"target 0: needs a dict of boxes, labels and masks, got (NoneType|list)"):
        detector.train()(pictures[:1], [target])


def test_a_model_of_clips_is_no_backbone():
    for make in (skimba.mask_rcnn, skimba.upernet):
        with pytest.raises(
            ValueError, match="videomamba_micro takes clips: a detector or segmenter needs a model of pict"
        ):
            make("videomamba_micro", 3)


@pytest.mark.parametrize("targets", [None, []])
def test_training_needs_a_target_for_each_picture(dense_model, pictures, targets):
    with pytest.raises(ValueError, match=r"training needs one (target|map) for each picture: got 2 pictures and"):
        dense_model.train()(pictures, targets)


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (torch.full((64, 64), 3), "map 0 has the class 3: classes go from 0 to 2, 255 is ignored"),
        (torch.zeros(32, 64, dtype=torch.uint8), r"map 0 must be \(64, 64\) uint8 or int64"),
        (torch.zeros(64, 64), "got .*float32"),
        (None, r"map 0 must be \(64, 64\) uint8 or int64, as its picture, got NoneType"),
    ],
)
def test_maps_of_a_wrong_form_are_named(segmenter, pictures, classes, says):
    with pytest.raises(ValueError, match=says):
        segmenter.train()(pictures[:1], [classes])


def test_training_pictures_of_several_sizes_are_refused(segmenter, pictures):
    maps = [torch.zeros(picture.shape[1:], dtype=torch.uint8) for picture in pictures]
    with pytest.raises(ValueError, match=r"of one size, got \[\(50, 72\), \(64, 64\)\]"):
        segmenter.train()(pictures, maps)


@pytest.mark.parametrize(
    ("images", "error", "says"),
    [
        ([], ValueError, "one picture or more"),
        (
            [torch.zeros(3, 7, 64)],
            ValueError,
            r"picture 0 must be at least one patch \(8 px\) high and wide, got \(7, 64\)",
        ),
        ([torch.zeros(1, 64, 64)], ValueError, r"picture 0 must be \(3 height width\), got \(1, 64, 64\)"),
        (
            [torch.zeros(3, 64, 64, dtype=torch.uint8)],
            TypeError,
            "floating point tensor with values in 0 … 1, got torch.uint8",
        ),
        (["scene.png"], TypeError, "got str"),
    ],
)
def test_wrong_pictures_are_refused(dense_model, images, error, says):
    with pytest.raises(error, match=says):
        dense_model(images)


def test_a_checkpoint_of_the_other_task_is_named(tmp_path):
    make = {"detector": skimba.mask_rcnn, "segmenter": skimba.upernet}
    for kind, build in make.items():
        torch.save({"state_dict": build("plain_mamba_micro", 3, **SIZES).state_dict()}, tmp_path / f"{kind}.pth")
    with pytest.raises(ValueError, match=r"segmenter.pth holds the weights of a UperNet .*, and this is a Mask R-CNN"):
        skimba.mask_rcnn("plain_mamba_micro", 3, checkpoint=tmp_path / "segmenter.pth", **SIZES)
    with pytest.raises(ValueError, match=r"detector.pth holds the weights of a Mask R-CNN .*, and this is a UperNet"):
        skimba.upernet("plain_mamba_micro", 3, checkpoint=tmp_path / "detector.pth", **SIZES)
    classifier = skimba.create_model("plain_mamba_micro_patch4_56")
    torch.save({"state_dict": classifier.state_dict()}, tmp_path / "classifier.pth")
    with pytest.raises(ValueError, match="holds the weights of a classifier"):
        skimba.mask_rcnn("plain_mamba_micro", 3, checkpoint=tmp_path / "classifier.pth", **SIZES)
    with pytest.raises(ValueError, match=r"holds the weights of a UperNet .*, and this is a classifier"):
        skimba.create_model("plain_mamba_micro_patch4_56", checkpoint=tmp_path / "segmenter.pth")


def test_a_checkpoint_loads_and_other_classes_start_afresh(tmp_path):
    path = tmp_path / "three.pth"
    trained = randomise(skimba.mask_rcnn("plain_mamba_micro", 3, **SIZES))
    torch.save({"state_dict": trained.state_dict()}, path)
    same = skimba.mask_rcnn("plain_mamba_micro", 3, checkpoint=path, **SIZES)
    assert all(
        torch.equal(a, b) for a, b in zip(same.state_dict().values(), trained.state_dict().values(), strict=True)
    )
    other = skimba.mask_rcnn("plain_mamba_micro", 5, checkpoint=path, **SIZES)
    assert other.roi_head.bbox_head.fc_cls.out_features == 6
    assert torch.equal(other.neck.fpn_convs[0].conv.weight, trained.neck.fpn_convs[0].conv.weight)
    with pytest.raises(ValueError, match=r"does not fit this MaskRCNN: .*shape of .*patch_embed"):
        skimba.mask_rcnn("plain_mamba_micro", 3, checkpoint=path, **{**SIZES, "patch_size": 16})


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("name", ["plain_mamba_micro", "vim_micro"])
@pytest.mark.parametrize("make", [skimba.mask_rcnn, skimba.upernet])
def test_a_model_is_written_and_read_again(tmp_path, make, name, pruned):
    model = randomise(make(name, 3, restore="owner", largest=(64, 96), **SIZES))
    model.pictures.image_mean = model.backbone.pretrained_cfg["mean"] = [0.1, 0.2, 0.3]
    if pruned:
        model = skimba.prune(model, "hold", {1: 0.5})
    beside = skimba.save_model(model, tmp_path / "dense.safetensors", {"AP": 1.0})
    assert beside.is_file()
    read = skimba.create_model(checkpoint=tmp_path / "dense.safetensors").eval()
    assert type(read) is type(model)
    assert read.img_size == model.img_size == (64, 96)
    assert read.pictures.image_mean == [0.1, 0.2, 0.3]
    images = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(5))]
    with torch.no_grad():
        for got, expected in zip(read(images)[0].values(), model(images)[0].values(), strict=True):
            assert torch.equal(got, expected)


def test_what_cannot_be_written_says_so(tmp_path):
    model = skimba.mask_rcnn("vim_micro", 3, restore=RESTORE["last"], **SIZES)
    with pytest.raises(ValueError, match="a restore that is a function cannot be written"):
        skimba.save_model(model, tmp_path / "dense.safetensors")
    model.made = {}
    with pytest.raises(ValueError, match=r"only a model that skimba.mask_rcnn or skimba.upernet made"):
        skimba.save_model(model, tmp_path / "dense.safetensors")


def test_a_number_of_classes_is_one_or_more():
    with pytest.raises(ValueError, match="num_classes must be 1 or more, got 0"):
        skimba.mask_rcnn("vim_micro", 0)


def test_published_weights_without_a_network_say_what_to_fetch(monkeypatch):
    monkeypatch.setattr("skimba.models.variants.ENDPOINT", "https://nowhere.invalid")
    monkeypatch.setattr("skimba.models.variants.try_to_load_from_cache", lambda *_: None)
    for proxy in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    for make, weights, file in (
        (skimba.mask_rcnn, "coco", "detection/maskrcnn/l1_1x.pth"),
        (skimba.upernet, "ade20k", "segmentation/l1_upernet.pth"),
    ):
        with torch.device("meta"), pytest.raises(ConnectionError, match=f"ChenhongyiYang/PlainMamba/.*{file}"):
            make("plain_mamba_l1", pretrained=weights)


def test_weights_that_were_never_published_are_refused():
    with pytest.raises(
        ValueError, match="no weights 'coco' are published for this model of vim_tiny_patch16_224; known: imagenet"
    ):
        skimba.mask_rcnn("vim_tiny_patch16_224", pretrained="coco")
    with pytest.raises(ValueError, match=r"no weights 'ade20k' .* known: coco, imagenet"):
        skimba.mask_rcnn("plain_mamba_l1", pretrained="ade20k")
    with pytest.raises(ValueError, match="known: auto, zeros, owner"):
        skimba.mask_rcnn("vim_micro", restore="best")
    with pytest.raises(ValueError, match="not both"):
        skimba.upernet("plain_mamba_l1", pretrained="ade20k", checkpoint="x.pth")


@pytest.mark.parametrize("name", ["vim_tiny_patch16_224", "vim_tiny_patch16_stride8_224", "plain_mamba_l1"])
def test_any_model_is_a_backbone(name):
    detector = skimba.mask_rcnn(name, num_classes=2, depth=4, largest=None).eval()
    segmenter = skimba.upernet(name, num_classes=2, depth=4, largest=None).eval()
    with torch.no_grad():
        maps = detector.maps(torch.rand(1, 3, 64, 96))
        stages = segmenter.backbone.forward_maps(torch.rand(1, 3, 64, 96))
    for one, stride in zip(maps, detector.neck.strides, strict=True):
        assert one.shape[2:] == (-(-64 // stride), -(-96 // stride))
    stride = segmenter.backbone.strides[0]
    assert [tuple(one.shape[2:]) for one in stages] == [(64 // stride, 96 // stride)] * 4


def test_a_mask_pasted_into_its_box_and_cut_out_again():
    box = torch.tensor([[3.0, 5.0, 31.0, 33.0]])
    mask = torch.zeros(1, 28, 28)
    mask[:, 7:20, 4:25] = 1.0
    pasted = paste_masks(mask, box, (40, 48))
    assert pasted[0, 5 + 7 : 5 + 20, 3 + 4 : 3 + 25].all()
    assert pasted.sum() == mask.sum()
    assert torch.equal(mask_targets(pasted, box, torch.tensor([0]), 28), mask)


def test_a_box_outside_the_picture_has_no_pixels():
    outside = torch.tensor([[60.0, 5.0, 70.0, 9.0]])
    assert paste_masks(torch.ones(1, 28, 28), outside, (40, 48)).sum() == 0


def test_bfloat16_sees_what_float32_sees(dense_model, pictures):
    images = torch.stack([pictures[0]] * 2)
    with torch.no_grad():
        wide = dense_model.maps(images)
        narrow = dense_model.bfloat16().maps(images)
        found = dense_model(pictures)
    for a, b in zip(narrow, wide, strict=True):
        assert a.dtype == torch.bfloat16
        assert (a - b).norm() / b.norm() < 0.1
    assert all(tensor.dtype != torch.bfloat16 for picture in found for tensor in picture.values())


def test_boxes_of_a_bfloat16_detector_are_not_rounded():
    """bfloat16 knows multiples of 4 px at 1,000 px."""
    detector = skimba.mask_rcnn("vim_micro", num_classes=3, depth=1).eval().bfloat16()
    torch.nn.init.zeros_(detector.rpn_head.rpn_reg.weight)
    for most in (detector.rpn_head._pre_nms_top_n, detector.rpn_head._post_nms_top_n):
        most["testing"] = 1000  # those of a scene are all in its left
    maps = [torch.zeros(1, 48, -(-32 // s), -(-1024 // s), dtype=torch.bfloat16) for s in detector.neck.strides]
    with torch.no_grad():
        (proposals,), _, _ = detector.rpn_head(maps, [(32, 1024)])
    anchors = torch.cat(detector.rpn_head.anchor_generator(maps)).clamp(min=0)
    anchors = torch.stack([anchors[:, 0].clamp(max=1024), anchors[:, 1].clamp(max=32)], 1)
    far = proposals[proposals[:, 0] > 800][:, :2]
    assert len(far) > 0
    assert (torch.cdist(far, anchors).amin(1) < 1e-3).all()


def test_a_model_in_float64_answers_in_float64(dense_model):
    images = [torch.rand(3, 64, 64, dtype=torch.float64)]
    with torch.no_grad():
        (found,) = dense_model.double()(images)
    assert next(found[name] for name in ("boxes", "logits") if name in found).dtype == torch.float64


def test_costs_are_counted_on_the_pictures_of_the_task():
    with torch.device("meta"):
        detector, segmenter = skimba.mask_rcnn("plain_mamba_l1"), skimba.upernet("plain_mamba_l1")
    assert detector.img_size == detector.backbone.img_size == (800, 1344)
    assert segmenter.img_size == segmenter.backbone.img_size == (512, 2048)
    assert skimba.count_flops(detector) == skimba.count_flops(detector, (800, 1344))


def test_parameters_without_weight_decay(dense_model):
    names = dense_model.no_weight_decay()
    assert names <= {name for name, _ in dense_model.named_parameters()}
    assert any(name.endswith("pos_embed") for name in names)
    assert ("backbone.level_embed" in names) == hasattr(dense_model.backbone, "level_embed")


@pytest.mark.parametrize("make", [skimba.mask_rcnn, skimba.upernet])
@pytest.mark.parametrize("name", ["plain_mamba_micro", "vim_micro"])
def test_micro_models_are_small(make, name):
    model = make(name, num_classes=10)
    assert sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()) <= 5e6
    assert model.img_size == (128, 128)
    assert model.backbone.embed(torch.zeros(1, 3, 128, 128)).layout.image_count == 256


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "retinanet"}, "unknown kind 'retinanet'; known: classifier, mask_rcnn, upernet"),
        ({"kind": ["mask_rcnn"]}, "unknown kind"),
        ({"kind": "upernet"}, "the weights are not those of plain_mamba_micro"),
        ({"model": "any"}, "unknown model 'any'; known: "),
        ({"sizes": {"num_classes": 10**9}}, "the weights are not those|no model can have these sizes"),
        ({"sizes": {"num_classes": -1}}, "num_classes must be 1 or more, got -1"),
        ({"sizes": {"num_classes": 3, "restore": "best"}}, "unknown restore 'best'"),
        ({"sizes": {"num_classes": 3, "largest": "all"}}, "largest must be two whole numbers"),
        ({"sizes": {"num_classes": 3, "depth": 10**9}}, "sizes.depth|depth"),
    ],
)
def test_a_changed_description_is_refused_before_anything_is_built(tmp_path, change, says):
    path = tmp_path / "dense.safetensors"
    beside = skimba.save_model(skimba.mask_rcnn("plain_mamba_micro", 3, **SIZES), path)
    beside.write_text(json.dumps({**json.loads(beside.read_text()), **change}))
    with pytest.raises(ValueError, match=says):
        skimba.create_model(checkpoint=path)
