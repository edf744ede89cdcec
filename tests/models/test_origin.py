"""A checkpoint of one family is refused by another where names and shapes agree."""

import argparse
import re

import pytest
import torch

import skimba
from skimba.models.origin import FAMILIES, PUBLISHED, family_of
from skimba.models.registry import MODELS
from skimba.models.variants import HubFile, WebFile
from tests.conftest import TINY, randomise, tiny_video_mamba, tiny_vim

PAIRS = [(tiny_vim, tiny_video_mamba, "Vim"), (tiny_video_mamba, tiny_vim, "VideoMamba")]


@pytest.mark.parametrize(("one", "other", "family"), PAIRS)
@pytest.mark.parametrize("arguments", [argparse.Namespace, dict])
def test_by_its_training_arguments(one, other, family, arguments, tmp_path):
    name = {"Vim": "vim_tiny_patch16_224_bimambav2", "VideoMamba": "videomamba_tiny"}[family]
    torch.save({"model": one().state_dict(), "args": arguments(model=name)}, tmp_path / "w.pth")
    with pytest.raises(
        ValueError, match=f"w.pth is a checkpoint of {family}, and the model is a .*: .*says .*'{name}'"
    ):
        skimba.load_checkpoint(other(), tmp_path / "w.pth")
    skimba.load_checkpoint(one(), tmp_path / "w.pth")


@pytest.mark.parametrize(("one", "other", "family"), PAIRS)
def test_by_the_name_of_a_published_file(one, other, family, tmp_path):
    name = {"Vim": "vim_t_midclstok_76p1acc.pth", "VideoMamba": "videomamba_t16_in1k_res224.pth"}[family]
    torch.save({"model": one().state_dict()}, tmp_path / name)
    with pytest.raises(ValueError, match=f"is a checkpoint of {family}, .* the name of a published file"):
        skimba.load_checkpoint(other(), tmp_path / name)
    skimba.load_checkpoint(one(), tmp_path / name)


@pytest.mark.parametrize(("one", "other", "family"), PAIRS)
def test_by_what_skimba_wrote_into_it(one, other, family, tmp_path):
    sizes = {"img_size": 32, "embed_dim": 16, "depth": 2}
    names = {"Vim": "vim_tiny_patch16_224", "VideoMamba": "videomamba_tiny_patch16_224"}
    wrong = next(name for known, name in names.items() if known != family)
    skimba.save_model(skimba.create_model(names[family], **sizes), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=f"is a checkpoint of {family}, "):
        skimba.create_model(wrong, checkpoint=tmp_path / "w.safetensors", **sizes)
    assert skimba.load_model(tmp_path / "w.safetensors").family == family


def test_by_the_rates_that_its_training_left_alone(tmp_path):
    """As in the official files of VideoMamba-T and -S: the class token, first, reads one step of the last forward scan."""
    images, labels = torch.randn(4, 3, 24, 32, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    trained = {}
    for make in (tiny_vim, tiny_video_mamba):
        torch.manual_seed(0)
        model = trained[make] = make().train()
        steps = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)
        for _ in range(3):
            steps.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            steps.step()
        torch.save(model.state_dict(), tmp_path / f"{make.__name__}.pth")
    with pytest.raises(ValueError, match=r"is a checkpoint of VideoMamba, .* last block was not trained"):
        skimba.load_checkpoint(tiny_vim(), tmp_path / "tiny_video_mamba.pth")
    skimba.load_checkpoint(tiny_video_mamba(), tmp_path / "tiny_video_mamba.pth")
    skimba.load_checkpoint(tiny_vim(), tmp_path / "tiny_vim.pth")


@pytest.mark.parametrize("model", TINY.values(), ids=TINY)
def test_weights_that_tell_nothing_are_loaded(model, tmp_path):
    torch.save(randomise(model()).state_dict(), tmp_path / "videomamba_mine.pth")
    skimba.load_checkpoint(model(), tmp_path / "videomamba_mine.pth")


def test_published_files_and_names_of_models_tell_their_family():
    for name, variant in MODELS.items():
        family = variant.model.family
        assert family_of(name) == (family or None), name
        if family and isinstance(variant.source, HubFile | WebFile):
            stem = variant.source.name.rsplit(".", 1)[0]
            assert re.fullmatch(PUBLISHED, stem), stem
            assert family_of(stem) == family
    assert {variant.model.family for variant in MODELS.values()} == {*FAMILIES.values(), ""}
