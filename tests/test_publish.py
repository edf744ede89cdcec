import json
import shutil

import huggingface_hub
import pytest
import torch

import skimba
from skimba.pruning import Drop, Flops, Method, prune
from skimba.store import create_model
from skimba.store.publish import load_model, push_model, save_model
from skimba.training import Recipe, train


def same(first, second, channels=1, size=28):
    images = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return torch.equal(first.eval()(images), second.eval()(images))


@pytest.mark.parametrize("method", [None, "top", "hold", "r_meeto"])
def test_a_model_comes_back_pruned_as_it_was(tmp_path, method):
    model = create_model("vim_micro", pretrained=True)
    if method is not None:
        model = prune(model, method, Flops(0.6))
    beside = save_model(model, tmp_path / "m.safetensors", {"top1": 0.5})
    content = json.loads(beside.read_text())
    assert (content["model"], content["figures"]) == ("vim_micro", {"top1": 0.5})
    found = skimba.create_model(checkpoint=tmp_path / "m.safetensors")
    assert same(found, model)
    assert found.pretrained_cfg["mean"] == model.pretrained_cfg["mean"]
    if method is not None:
        assert found.reducer == model.reducer


def test_sizes_and_normalisation_come_back(tmp_path):
    recipe = Recipe("vim_micro", sizes={"depth": 2, "embed_dim": 32}, mean=(0.5,), std=(0.25,), crop_share=0.9)
    model = recipe.dense_model(num_classes=3)
    save_model(model, tmp_path / "m.safetensors")
    found = load_model(tmp_path / "m.safetensors")
    assert same(found, model)
    assert (found.num_classes, len(found.layers)) == (3, 2)
    assert found.pretrained_cfg["std"] == (0.25,)
    assert found.pretrained_cfg["crop_pct"] == 0.9


def test_a_trained_pruned_model_is_restored_from_its_folder(tmp_path):
    images = skimba.data.embedded_test_images()[:16]
    recipe = Recipe(
        "vim_micro", epochs=1, batch_size=16, pretrained=True, prune={"method": "hold", "schedule": {"flops": 0.6}}
    )
    figures = train(recipe, images, images, tmp_path)
    found = skimba.create_model(checkpoint=tmp_path / "weights.safetensors")
    assert found.reducer is not None
    assert json.loads((tmp_path / "weights.json").read_text())["figures"] == {
        f"test_{name}": figure for name, figure in figures.items()
    }


def test_what_cannot_be_written_or_read_is_refused(tmp_path):
    model = create_model("vim_micro")
    with pytest.raises(ValueError, match=r"written as \.safetensors, got m\.pth"):
        save_model(model, tmp_path / "m.pth")
    own = prune(model, Method(Drop(lambda tokens, count, seed: tokens.x.sum(-1))))
    with pytest.raises(ValueError, match="got a function as score"):
        save_model(own, tmp_path / "m.safetensors")
    with pytest.raises(FileNotFoundError, match=r"no m\.json beside"):
        load_model(tmp_path / "m.safetensors")
    beside = save_model(model, tmp_path / "m.safetensors")
    content = json.loads(beside.read_text())
    for change, error, says in (
        ({"format": "x"}, ValueError, "not of the format 'skimba 1'"),
        ({"input": {}}, ValueError, "input must be tables"),
        ({"model": "../../etc"}, ValueError, "unknown model"),
        ({"sizes": {"width": 3}}, TypeError, "got width"),
        ({"prune": {"method": "best"}}, ValueError, "unknown method"),
    ):
        beside.write_text(json.dumps({**content, **change}))
        with pytest.raises(error, match=says):
            load_model(tmp_path / "m.safetensors")
    beside.write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        load_model(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="without a name, give checkpoint=PATH alone"):
        create_model(checkpoint=tmp_path / "m.safetensors", num_classes=3)
    with pytest.raises(ValueError, match="no other knows its name and sizes"):
        save_model(
            skimba.VisionMamba(img_size=28, patch_size=2, in_chans=1, embed_dim=16, depth=1), tmp_path / "a.safetensors"
        )


def test_what_was_pushed_comes_back_from_the_hub(tmp_path, monkeypatch):
    """A folder stands in for the hub, behind huggingface_hub's own functions."""
    hub = tmp_path / "hub"

    class LocalHub:
        def create_repo(self, repository, private, exist_ok):
            (hub / repository).mkdir(parents=True, exist_ok=exist_ok)

        def upload_file(self, path_or_fileobj, path_in_repo, repo_id):
            shutil.copy(path_or_fileobj, hub / repo_id / path_in_repo)

    monkeypatch.setattr("skimba.store.publish.HfApi", LocalHub)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)
    monkeypatch.setattr("skimba.models.variants._reach_hub", lambda: None)
    monkeypatch.setattr("skimba.models.variants.hf_hub_download", lambda repo, name, **_: str(hub / repo / name))
    model = prune(create_model("vim_micro", pretrained=True), "hold", Flops(0.6))
    save_model(model, tmp_path / "mine.safetensors")
    push_model(tmp_path / "mine.safetensors", "someone/pruned")
    assert sorted(path.name for path in (hub / "someone" / "pruned").iterdir()) == ["model.json", "model.safetensors"]
    assert same(skimba.create_model(checkpoint="hf-hub:someone/pruned"), model)
