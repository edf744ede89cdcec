import json

import pytest
import torch

import skimba
from skimba.data import embedded_test_images
from skimba.pruning.refit import _Sums

images = embedded_test_images().normalised()


def far(model, dense, shown):
    with torch.no_grad():
        return (model(shown) - dense(shown)).square().mean().item()


@pytest.mark.parametrize("name", ["vim_micro", "plain_mamba_micro"])
def test_logits_come_nearer_to_the_dense_models_on_other_pictures(name):
    dense = skimba.create_model(name, pretrained=True).eval()
    pruned = skimba.prune(dense, "hold", {2: 0.5, 4: 0.5})
    fitted = skimba.refit(pruned, images[:80].split(40))
    shown = images[200:240]
    assert far(fitted, dense, shown) < 0.9 * far(pruned, dense, shown)
    assert not fitted.training
    own = fitted.state_dict()
    assert set(own) - set(dense.state_dict()) == {"correction.weight", "correction.bias"}
    assert all(own[key].data_ptr() == value.data_ptr() for key, value in dense.state_dict().items()), (
        "weights are shared"
    )
    assert pruned.correction is None
    width = fitted.head_hidden_size
    whole, before = (skimba.count_flops(model, convention="exact").total for model in (fitted, pruned))
    assert whole == before + width * width


def test_another_pruning_and_none_leave_the_correction_out():
    dense = skimba.create_model("vim_micro", pretrained=True).eval()
    fitted = skimba.refit(skimba.prune(dense, "hold", {2: 0.5}), [images[:60]])
    assert skimba.prune(fitted, "top", {2: 0.7}).correction is None
    with torch.no_grad():
        assert torch.equal(skimba.unprune(fitted)(images[:2]), dense(images[:2]))
    again = skimba.refit(fitted, [images[:60]])
    assert torch.equal(again.correction.weight, fitted.correction.weight), "not fitted to what is corrected"


def test_saved_with_its_correction(tmp_path):
    dense = skimba.create_model("vim_micro", pretrained=True).eval()
    fitted = skimba.refit(skimba.prune(dense, "hold", {2: 0.5}), [images[:60]])
    skimba.save_model(fitted, tmp_path / "fitted.safetensors")
    again = skimba.load_model(tmp_path / "fitted.safetensors").eval()
    with torch.no_grad():
        assert torch.equal(again(images[:4]), fitted(images[:4]))
        assert not torch.equal(again(images[:4]), skimba.prune(dense, "hold", {2: 0.5})(images[:4]))


def test_a_file_that_says_it_is_dense_has_no_correction(tmp_path):
    dense = skimba.create_model("vim_micro", pretrained=True).eval()
    path, beside = tmp_path / "m.safetensors", tmp_path / "m.json"
    skimba.save_model(skimba.refit(skimba.prune(dense, "hold", {2: 0.5}), [images[:60]]), path)
    beside.write_text(json.dumps({**json.loads(beside.read_text()), "prune": None}))
    with pytest.raises(ValueError, match=r"correction\."):
        skimba.load_model(path)


def test_nothing_is_added_where_nothing_is_lacking():
    dense = skimba.create_model("vim_micro", pretrained=True).eval()
    correction = skimba.refit(skimba.prune(dense, "condensed", {2: 1.0}), [images[:60]]).correction
    assert correction.weight.abs().max() < 1e-4
    assert correction.bias.abs().max() < 1e-4


def sums_of(features, lacking):
    found = _Sums.none(features.shape[1], features.device)
    found.add(features, features + lacking)
    return found


def test_the_regression_is_the_best_linear_function():
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(400, 6, generator=draw, dtype=torch.float64) + 3
    lacking = features @ torch.randn(6, 6, generator=draw, dtype=torch.float64) + torch.randn(
        400, 6, generator=draw, dtype=torch.float64
    )
    sums = sums_of(features[:100], lacking[:100]).plus(sums_of(features[100:], lacking[100:]))
    weight, bias = sums.solve(1e-12)
    rows = torch.cat((features, torch.ones(400, 1, dtype=torch.float64)), 1)
    expected = torch.linalg.lstsq(rows, lacking).solution
    torch.testing.assert_close(torch.cat((weight, bias[None])), expected, atol=1e-6, rtol=1e-6)
    left = (features @ weight + bias - lacking).square().sum().item()
    assert sums.error(weight, bias) == pytest.approx(left, rel=1e-6)
    shrunk, level = sums.solve(1e6)
    assert shrunk.abs().max() < 1e-4
    torch.testing.assert_close(level, lacking.mean(0), atol=1e-3, rtol=0)


def test_images_that_do_not_differ_correct_the_mean_and_broken_ones_are_told():
    dense = skimba.create_model("vim_micro", pretrained=True).eval()
    pruned = skimba.prune(dense, "hold", {2: 0.3})
    same = torch.zeros(50, 1, 28, 28)
    fitted = skimba.refit(pruned, [same])
    assert far(fitted, dense, same[:1]) < 1e-6 < far(pruned, dense, same[:1])
    broken = images[:50].clone()
    broken[7, 0, 3, 3] = float("nan")
    with pytest.raises(ValueError, match="those of some images are NaN or infinite"):
        skimba.refit(pruned, [broken])


def test_what_cannot_be_fitted_is_told():
    dense = skimba.create_model("vim_micro", depth=2)
    pruned = skimba.prune(dense, "hold", {1: 0.5})
    with pytest.raises(ValueError, match="needs a pruned model, got a dense one"):
        skimba.refit(dense, [images[:60]])
    with pytest.raises(ValueError, match="needs 50 images or more, got 10"):
        skimba.refit(pruned, images[:10].split(5))
    with pytest.raises(TypeError, match="for classification, got Linear"):
        skimba.refit(torch.nn.Linear(1, 1), [])
