import pytest
import torch

from skimba.models import PlainMamba, VisionMamba


def tiny_vim(**sizes):
    return VisionMamba(
        **{"img_size": (24, 32), "patch_size": 4, "embed_dim": 16, "depth": 4, "num_classes": 5, **sizes}
    )


def tiny_plain_mamba(**sizes):
    defaults = {
        "img_size": (24, 32),
        "patch_size": 4,
        "embed_dim": 16,
        "depth": 4,
        "dwconv_blocks": (1,),
        "num_classes": 5,
    }
    return PlainMamba(**{**defaults, **sizes})


TINY = {"vim": tiny_vim, "plain_mamba": tiny_plain_mamba}


def randomise(model, seed=0):
    """Parameters large enough that every part of the model matters to its output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "A_log" in name or name.endswith(".D") or "dt_proj.bias" in name:
                continue
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


@pytest.fixture(params=list(TINY))
def model(request):
    """A small Vim and a small PlainMamba, of 48 image tokens."""
    torch.manual_seed(0)
    return randomise(TINY[request.param]())


@pytest.fixture
def images():
    return torch.randn(3, 3, 24, 32, generator=torch.Generator().manual_seed(1))
