"""Detectors and segmenters in several processes: two processes give what one gives."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from skimba.data import SceneMaps, SceneObjects, embedded_test_images, select
from skimba.data.instances import as_coco
from skimba.data.scene_targets import dense_scenes
from skimba.training.checkpoint import WEIGHTS
from skimba.training.journal import LOG, read_log
from tests.processes import ranks, skimba
from tests.test_distributed import run

COUNT = 8
SPLITS = ("train", "val")
LEARNED = [
    "sizes.depth=2",
    "sizes.embed_dim=32",
    "augmentation=mirror",
    "epochs=2",
    "batch_size=4",
    "micro_batch_size=2",
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Eight fashion scenes as COCO's folders and as label maps, in one folder; both splits are the same."""
    root = tmp_path_factory.mktemp("scenes")
    of = dense_scenes(embedded_test_images()[:COUNT], "test")
    objects, maps = SceneObjects(of), SceneMaps(of)
    coco = as_coco(select(objects, range(COUNT)))
    for image in coco["images"]:
        image["file_name"] = f"{image['id']}.png"
    (root / "classes.txt").write_text("\n".join(maps.classes) + "\n")
    for split in SPLITS:
        for folder in (root / "images" / split, root / "annotations" / split):
            folder.mkdir(parents=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(coco))
        for index in range(COUNT):
            objects.picture(index).save(root / "images" / split / f"{index}.png")
            classes = maps.target(index).read().astype("uint8")
            Image.fromarray(classes).save(root / "annotations" / split / f"{index}.png")
    return root


@pytest.mark.parametrize("kind", ["upernet", pytest.param("mask_rcnn", marks=pytest.mark.slow)])
def test_two_processes_measure_what_one_measures(kind, scenes):
    options = ["--data", scenes, "--prune", "hold", "--workers", 0, "--batch-size", 2, "--json"]
    found = {}
    for processes in (1, 2):
        found[processes] = json.loads(run(processes, "eval", f"{kind}:plain_mamba_micro", *options))
        found[processes].pop("images_per_s")
    assert found[1] == found[2]
    assert found[1]["images"] == COUNT
    assert 0 < found[1]["miou" if kind == "upernet" else "box_ap"] < 1


@pytest.mark.slow
def test_two_processes_train_a_segmenter_as_one(scenes, tmp_path, monkeypatch):
    """One process has micro batches of the size of the two processes' shares: BatchNorm's statistics are of those on a CPU. The
    channels that dropout takes are drawn in each process anew, so it is off; running statistics are of one share."""
    for processes in (1, 2):
        out = tmp_path / str(processes)
        call = [*("train", "vim_micro", "kind=upernet", *LEARNED), *("--data", scenes, "--out", out, "--workers", 0)]
        if processes == 1:
            monkeypatch.setattr(nn.Dropout2d, "forward", keep_all)
            run(1, *call)
        else:
            forks = ranks(processes, without_dropout, *call)
            assert [fork.returncode for fork in forks] == [0, 0], [fork.stderr for fork in forks]
    first, second = (load_file(tmp_path / n / WEIGHTS) for n in ("1", "2"))
    for name, tensor in first.items():
        if "running_" not in name and "num_batches" not in name:
            torch.testing.assert_close(second[name], tensor, atol=5e-5, rtol=1e-3, msg=name)
    logs = [read_log(tmp_path / n / LOG) for n in ("1", "2")]
    assert [one["loss"] for one in logs[0]] == pytest.approx([one["loss"] for one in logs[1]], rel=1e-4)


def without_dropout(*arguments):
    """skimba's command line without dropout."""
    nn.Dropout2d.forward = keep_all
    skimba(*arguments)


def keep_all(self, x):
    """Dropout2d that takes nothing out."""
    return x
