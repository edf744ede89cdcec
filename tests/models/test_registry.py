import sys
import types

import pytest
import timm
import torch
from timm.models import register_model

import skimba
from skimba.models import MODELS
from skimba.pruning import paper_schedule


@pytest.fixture
def strangers_vim():
    """Somebody else's module named ``vim`` that registers a model with timm."""
    module = types.ModuleType("somebodys.vim")
    sys.modules["somebodys.vim"] = module

    def strange_vim(pretrained=False, **sizes):
        return torch.nn.Identity()

    strange_vim.__module__ = "somebodys.vim"
    register_model(strange_vim)
    yield "strange_vim"
    timm.models._registry._clear_model_entries("strange_vim")
    timm.models._registry._model_entrypoints.pop("strange_vim", None)
    del sys.modules["somebodys.vim"]


def test_models_of_other_packages_are_not_listed(strangers_vim):
    assert timm.is_model(strangers_vim)
    assert strangers_vim not in skimba.list_models()
    with pytest.raises(ValueError, match="unknown model 'strange_vim'"):
        skimba.create_model(strangers_vim)


def test_timm_knows_all_models_and_their_figures():
    for name, variant in MODELS.items():
        assert timm.models.model_entrypoint(name).__doc__ == variant.about
        assert "tokens of" in variant.about or ("parameters" in variant.about and "top-1" in variant.about)


@pytest.mark.parametrize("sizes", [{}, {"num_classes": 3}, {"depth": 2, "in_chans": 3}])
def test_timm_and_skimba_make_the_same(sizes, tmp_path):
    ours = skimba.create_model("vim_micro", pretrained=not sizes.get("depth"), **sizes)
    timms = timm.create_model("vim_micro", pretrained=not sizes.get("depth"), **sizes)
    assert type(ours) is type(timms)
    assert ours.pretrained_cfg == timms.pretrained_cfg
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in timms.state_dict().items()}
    skimba.save_model(timms, tmp_path / "m.safetensors")
    images = torch.randn(2, ours.in_chans, 28, 28)
    found = skimba.create_model(checkpoint=tmp_path / "m.safetensors").eval()
    with torch.no_grad():
        assert torch.equal(found(images), timms.eval()(images))


def test_timms_settings_are_heeded_or_refused(tmp_path):
    model = timm.create_model("vim_micro", pretrained_cfg_overlay={"mean": (0.25,)})
    assert model.pretrained_cfg["mean"] == (0.25,)
    weights = tmp_path / "m.pth"
    torch.save(model.state_dict(), weights)
    other = timm.create_model("vim_micro", pretrained=True, pretrained_cfg_overlay={"file": str(weights)})
    assert torch.equal(other.head.weight, model.head.weight)
    with pytest.raises(ValueError, match="one set of weights, without a tag; got pretrained_cfg='in22k'"):
        timm.create_model("vim_micro.in22k")


def test_a_paper_schedule_is_of_the_variant_as_published():
    with torch.device("meta"):
        assert paper_schedule(skimba.create_model("plain_mamba_l3")) == {5: 0.725, 10: 0.725, 15: 0.725}
        assert paper_schedule(skimba.create_model("vim_tiny_patch16_224")) == {10: 0.8, 20: 0.8}
        assert paper_schedule(skimba.create_model("vim_tiny_patch16_224", depth=12)) == {3: 0.8, 6: 0.8, 9: 0.8}
