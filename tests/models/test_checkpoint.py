import argparse
import os
import pickle
import random

import pytest
import torch
from safetensors.torch import save_file

import skimba
from skimba.models import read_state_dict
from tests.conftest import TINY, randomise, same_kind


def official(model, form, path):
    """Save as the official repositories do."""
    state = model.state_dict()
    if form == "vim":
        torch.save({"model": state, "args": argparse.Namespace(lr=1e-3), "epoch": 300, "optimizer": {}}, path)
    elif form == "mmcls":
        torch.save({"state_dict": state, "meta": {"epoch": 300}}, path)
    elif form == "bare":
        torch.save(state, path)
    else:
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    return path


@pytest.mark.parametrize("form", ["vim", "mmcls", "bare", "safetensors"])
def test_every_form_of_checkpoint_loads(model, images, form, tmp_path):
    path = official(model, form, tmp_path / f"weights.{form if form == 'safetensors' else 'pth'}")
    other = same_kind(model).eval()
    report = skimba.load_checkpoint(other, path)
    assert report.resized == report.reinitialised == []
    with torch.no_grad():
        assert torch.equal(other(images), model(images))


def test_positions_are_resized_to_the_models_grid(tmp_path):
    for make in TINY.values():
        path = official(randomise(make(img_size=24)), "bare", tmp_path / "weights.pth")
        model = make(img_size=(24, 40))
        report = skimba.load_checkpoint(model, path)
        assert len(report.resized) == 1
        assert model(torch.randn(1, 3, 24, 40)).isfinite().all()


def test_another_number_of_classes_resets_the_head_only_if_asked(model, tmp_path):
    path = official(model, "bare", tmp_path / "weights.pth")
    other = same_kind(model, num_classes=9)
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"head.*weight: got \(5, (16|24)\), the model has \(9, (16|24)\).*reset_head=True"
    ):
        skimba.load_checkpoint(other, path)
    assert all(torch.equal(before[k], v) for k, v in other.state_dict().items())
    report = skimba.load_checkpoint(other, path, reset_head=True)
    assert len(report.reinitialised) == 2
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, before[name] if name in report.reinitialised else model.state_dict()[name])


def test_missing_unexpected_and_misshaped_weights_are_named(model, tmp_path):
    state = model.state_dict()
    lost = next(iter(state))
    state["extra.weight"] = state.pop(lost)
    mixer = "mixer" if "mixer" in model.layers[0]._modules else "mamba"
    bent = next(name for name in state if name.endswith((f"layers.0.{mixer}.D", f"layers.0.{mixer}.D_0")))
    state[bent] = torch.zeros(3)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="does not fit") as caught:
        skimba.load_checkpoint(model, tmp_path / "weights.pth")
    for part in (f"1 missing: {lost}", "1 unexpected: extra.weight", f"shape of {bent}: got (3,)"):
        assert part in str(caught.value)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_never_run(tmp_path, zipped):
    target = tmp_path / "executed"
    path = tmp_path / "weights.pth"
    torch.save({"model": Bomb(str(target))}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="code in it is never run"):
        read_state_dict(path)
    path.write_bytes(pickle.dumps(Bomb(str(target))))
    with pytest.raises(ValueError, match=r"weights\.pth"):
        read_state_dict(path)
    assert not target.exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(model, tmp_path, suffix, share):
    path = official(model, suffix if suffix == "safetensors" else "bare", tmp_path / f"weights.{suffix}")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match="weights"):
        read_state_dict(path)


@pytest.mark.parametrize(
    "content", [b"hello, this is not a checkpoint\n" * 100, random.Random(0).randbytes(4096), b"<html>not found</html>"]
)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_foreign_file_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="weights"):
        read_state_dict(path)


@pytest.mark.parametrize("content", [[1, 2], {"model": 3}, {}, torch.zeros(3), {"epoch": 3}])
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        read_state_dict(tmp_path / "weights.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        read_state_dict(tmp_path / "nowhere.pth")
