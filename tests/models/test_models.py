import pytest
import timm
import torch

import skimba
from skimba.models import MODELS
from tests.conftest import TINY, randomise


def test_timm_finds_every_model():
    assert set(skimba.list_models()) <= set(timm.list_models())
    model = timm.create_model("vim_tiny_patch16_224", num_classes=3, depth=1)
    assert model(torch.randn(1, 3, 224, 224)).shape == (1, 3)


@pytest.mark.parametrize("name", skimba.list_models())
def test_every_variant_runs_and_learns(name):
    sizes = MODELS[name].sizes
    smaller = {"img_size": min(sizes.get("img_size", 224), 80)} | ({"frames": 2} if "frames" in sizes else {})
    model = skimba.create_model(name, depth=2, **smaller)
    images = torch.randn(1, *model.input_shape())
    model(images).square().sum().backward()
    without = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()}
    assert not without


@pytest.mark.parametrize("size", [(24, 32), (40, 24), (36, 36)])
def test_any_image_size_runs(model, size):
    logits = model(torch.randn(2, 3, *size))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


def test_class_token_stands_in_the_middle_of_any_grid():
    tokens = randomise(TINY["vim"]()).embed(torch.zeros(1, 3, 40, 24))
    assert tokens.layout.extras == (30,)
    assert tokens.x.shape[1] == 61


def test_a_sample_does_not_depend_on_its_batch(model, images):
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "error", "says"),
    [
        (torch.zeros(2, 1, 24, 32), ValueError, r"\(b 3 height width\), got \(2, 1, 24, 32\)"),
        (torch.zeros(3, 24, 32), ValueError, r"got \(3, 24, 32\)"),
        (torch.zeros(2, 3, 2, 32), ValueError, "at least one patch"),
        (torch.zeros(2, 3, 24, 32, dtype=torch.uint8), TypeError, "floating point"),
    ],
)
def test_wrong_images_are_refused(model, images, error, says):
    with pytest.raises(error, match=says):
        model(images)


def test_an_unknown_model_names_the_known_ones():
    with pytest.raises(ValueError, match="vim_small_patch16_224"):
        skimba.create_model("vim_huge")


def test_an_unknown_size_is_refused():
    with pytest.raises(TypeError, match="embed_dims"):
        skimba.create_model("vim_micro", embed_dims=3)


def test_pretrained_without_a_network_says_what_to_fetch(monkeypatch, tmp_path):
    monkeypatch.setattr("skimba.models.variants.ENDPOINT", "https://nowhere.invalid")
    monkeypatch.setattr("skimba.models.variants.try_to_load_from_cache", lambda *_: None)
    for proxy in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with pytest.raises(
        ConnectionError, match=r"hustvl/Vim-tiny-midclstok/.*vim_t_midclstok_76p1acc.pth.*checkpoint=PATH"
    ):
        skimba.create_model("vim_tiny_patch16_224", pretrained=True)
