import pytest
import torch

import skimba
from skimba.data import embedded_test_images
from skimba.pruning.refit import _ridge

images = embedded_test_images().normalised()


def far(model, dense, shown):
    with torch.no_grad():
        return (model(shown) - dense(shown)).square().mean().item()


@pytest.mark.parametrize("name", ["vim_micro", "plain_mamba_micro"])
def test_logits_come_nearer_to_the_dense_models_on_other_pictures(name):
    dense = skimba.create_model(name, pretrained=True).eval()
    pruned = skimba.prune(dense, "hold", {2: 0.5, 4: 0.5})
    before = {key: value.clone() for key, value in dense.state_dict().items()}
    fitted = skimba.refit_classifier(pruned, images[:200].split(100))
    shown = images[200:300]
    assert far(fitted, dense, shown) < 0.8 * far(pruned, dense, shown)
    assert all(torch.equal(value, before[key]) for key, value in dense.state_dict().items()), "dense stays"
    assert far(skimba.prune(dense, "hold", {2: 0.5, 4: 0.5}), dense, shown) == far(pruned, dense, shown), "pruned stays"
    shared = {
        key for key, value in pruned.state_dict().items() if value.data_ptr() == fitted.state_dict()[key].data_ptr()
    }
    assert len(pruned.state_dict()) - len(shared) == 2, "all but the layer's weight and bias is shared"
    assert not fitted.training


def test_saved_with_its_weights(tmp_path):
    dense = skimba.create_model("vim_micro", pretrained=True).eval()
    fitted = skimba.refit_classifier(skimba.prune(dense, "hold", {2: 0.5}), [images[:60]])
    skimba.save_model(fitted, tmp_path / "fitted.safetensors")
    again = skimba.load_model(tmp_path / "fitted.safetensors").eval()
    with torch.no_grad():
        assert torch.equal(again(images[:4]), fitted(images[:4]))
        assert not torch.equal(again(images[:4]), skimba.prune(dense, "hold", {2: 0.5})(images[:4]))


def test_nothing_is_added_where_nothing_is_lacking():
    dense = skimba.create_model("vim_micro", pretrained=True).eval()
    kept = skimba.prune(dense, "condensed", {2: 1.0})
    fitted = skimba.refit_classifier(kept, [images[:60]])
    torch.testing.assert_close(fitted.get_classifier().weight, dense.get_classifier().weight, atol=1e-4, rtol=0)


def test_the_regression_finds_a_linear_difference_and_ignores_noise():
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(4000, 12, generator=draw, dtype=torch.float64) + 3
    weight = torch.randn(12, 5, generator=draw, dtype=torch.float64)
    found, bias = _ridge(features, features @ weight + 2)
    torch.testing.assert_close(found, weight, atol=1e-3, rtol=0)
    torch.testing.assert_close(bias, torch.full((5,), 2.0, dtype=torch.float64), atol=1e-2, rtol=0)
    noise, level = _ridge(features[:60], torch.randn(60, 5, generator=draw, dtype=torch.float64))
    assert noise.abs().max() < 0.1
    assert level.abs().max() < 1


def test_what_cannot_be_fitted_is_told():
    dense = skimba.create_model("vim_micro", depth=2)
    pruned = skimba.prune(dense, "hold", {1: 0.5})
    with pytest.raises(ValueError, match="needs a pruned model, got a dense one"):
        skimba.refit_classifier(dense, [images[:60]])
    with pytest.raises(ValueError, match="needs 50 images or more, got 10"):
        skimba.refit_classifier(pruned, images[:10].split(5))
    with pytest.raises(ValueError, match="needs a linear classifier, got Identity"):
        skimba.refit_classifier(
            skimba.prune(skimba.create_model("vim_micro", depth=2, num_classes=0), "hold", {1: 0.5}), []
        )
    with pytest.raises(TypeError, match="for classification, got Linear"):
        skimba.refit_classifier(torch.nn.Linear(1, 1), [])
