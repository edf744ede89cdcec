import gc

import pytest
import torch

from skimba.models import LocalVim, MambaReg, PlainMamba, VideoMamba, VisionMamba

SIZES = {"img_size": (24, 32), "patch_size": 4, "embed_dim": 16, "depth": 4, "num_classes": 5}


def tiny_vim(**sizes):
    return VisionMamba(**{**SIZES, **sizes})


def tiny_video_mamba(**sizes):
    return VideoMamba(**{**SIZES, **sizes})


def tiny_mamba_reg(**sizes):
    return MambaReg(**{**SIZES, "registers": 3, "reduction": 2, **sizes})


def tiny_plain_mamba(**sizes):
    return PlainMamba(**{**SIZES, "dwconv_blocks": (1,), **sizes})


# Windows of 7 do not fit the grid of 6 x 8, and it is not square.
WALKS = (
    ("rows", "columns_back", "windows7", "windows7_back"),
    ("rows_back", "windows2_back", "windows7", "windows7_back"),
    ("rows", "rows_back", "columns", "windows2"),
    ("columns", "columns_back", "windows2", "windows2_back"),
)


def tiny_local_vim(**sizes):
    return LocalVim(**{**SIZES, "walks": WALKS, **sizes})


def tiny_local_vim_middle(**sizes):
    return LocalVim(**{**SIZES, "walks": WALKS, "class_token": True, **sizes})


TINY = {
    "vim": tiny_vim,
    "plain_mamba": tiny_plain_mamba,
    "video_mamba": tiny_video_mamba,
    "mamba_reg": tiny_mamba_reg,
    "local_vim": tiny_local_vim,
    "local_vim_middle": tiny_local_vim_middle,
}


def same_kind(model, **sizes):
    """A fresh small model of the same family."""
    kind = (type(model), model.class_token_count > 0)
    return next(make for make in TINY.values() if (type(made := make()), made.class_token_count > 0) == kind)(**sizes)


def randomise(model, seed=0):
    """Parameters large enough that every part of the model matters to its output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "A_log" in name or name.endswith(".D") or "dt_proj.bias" in name:
                continue
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def pytest_collection_finish():
    """What collecting made lives to the end: garbage collection, in this process and its forks, need not visit it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=list(TINY))
def model(request):
    """A small model of each family, of 48 image tokens."""
    torch.manual_seed(0)
    return randomise(TINY[request.param]())


@pytest.fixture
def images():
    return torch.randn(3, 3, 24, 32, generator=torch.Generator().manual_seed(1))
