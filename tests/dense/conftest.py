"""Small detectors and segmenters on both architectures, with parameters that matter."""

import pytest
import torch

import skimba
from tests.conftest import randomise

SIZES = {"img_size": 64, "patch_size": 8, "embed_dim": 16, "depth": 4}
DETECTORS = {
    "plain_mamba": lambda: skimba.mask_rcnn("plain_mamba_micro", num_classes=3, **SIZES),
    "vim": lambda: skimba.mask_rcnn("vim_micro", num_classes=3, **SIZES),
}
SEGMENTERS = {
    "plain_mamba": lambda: skimba.upernet("plain_mamba_micro", num_classes=3, **SIZES),
    "vim": lambda: skimba.upernet("vim_micro", num_classes=3, **SIZES),
}


@pytest.fixture(params=list(DETECTORS))
def detector(request):
    torch.manual_seed(0)
    return randomise(DETECTORS[request.param]())


@pytest.fixture(params=list(SEGMENTERS))
def segmenter(request):
    torch.manual_seed(0)
    return randomise(SEGMENTERS[request.param]())


@pytest.fixture(params=[(task, name) for task in ("detector", "segmenter") for name in DETECTORS], ids="-".join)
def dense_model(request):
    """Each of them."""
    task, name = request.param
    torch.manual_seed(0)
    return randomise({"detector": DETECTORS, "segmenter": SEGMENTERS}[task][name]())


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(2)
    return [torch.rand(3, 64, 64, generator=generator), torch.rand(3, 50, 72, generator=generator)]


@pytest.fixture
def objects():
    """Two objects in the first picture, none in the second."""
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 4:30, 6:40] = True
    masks[1, 35:60, 20:50] = True
    boxes = torch.tensor([[6.0, 4.0, 40.0, 30.0], [20.0, 35.0, 50.0, 60.0]])
    empty = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 50, 72, dtype=torch.bool),
    }
    return [{"boxes": boxes, "labels": torch.tensor([1, 3]), "masks": masks}, empty]
