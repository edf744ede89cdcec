import copy

import pytest
import torch
import torch.nn.functional as F

from skimba.cost.flops import REDUCER, count_flops
from skimba.data import embedded_test_images
from skimba.insight import trace
from skimba.models import with_reducer
from skimba.models.evaluation import predict
from skimba.pruning import prune
from skimba.pruning.learned import Predictor
from skimba.store import create_model
from skimba.store.publish import load_model, save_model
from skimba.training import Recipe, train

KEEP = {2: 0.7, 5: 0.7}


@pytest.fixture(params=["vim_micro", "plain_mamba_micro"])
def pruned(request):
    return prune(create_model(request.param, pretrained=True), "dyvm", KEEP)


def test_the_predictor_is_its_formula():
    torch.manual_seed(0)
    predictor, stream = Predictor(16), torch.randn(2, 5, 16)
    is_image = torch.tensor([[1.0, 1, 0, 1, 1], [1, 1, 1, 1, 0]])
    local, whole = predictor.inner(stream)[..., :8], predictor.inner(stream)[..., 8:]
    for image in range(2):
        mean = whole[image][is_image[image].bool()].mean(0)
        both = torch.cat([local[image], mean.expand(5, -1)], -1)
        stays = predictor.outer(both).softmax(-1)[:, 0]
        torch.testing.assert_close(predictor(stream, is_image)[image].sigmoid(), stays)


def test_it_is_trained_with_the_model_and_changes_no_value(pruned):
    images = embedded_test_images()[:8]
    names = [name for name, _ in pruned.named_parameters() if name.startswith("scorer.")]
    assert names
    logits = {}
    pruned.eval()
    for mode in (True, False):
        pruned.scorer.train(mode)
        logits[mode] = pruned(images.normalised())
    torch.testing.assert_close(logits[True], logits[False])
    F.cross_entropy(logits[True], images.labels).backward()
    for name, parameter in pruned.named_parameters():
        assert parameter.grad is not None, name
    weights = [p for n, p in pruned.named_parameters() if n.startswith("scorer.") and p.dim() == 2]
    assert all(weight.grad.abs().max() > 0 for weight in weights)


def test_other_prunings_and_the_dense_model_have_none(pruned):
    assert not any(name.startswith("scorer.") for name in with_reducer(pruned, None).state_dict())
    assert not any(name.startswith("scorer.") for name in prune(pruned, "top", KEEP).state_dict())
    assert copy.deepcopy(pruned).reducer.scorer is not pruned.reducer.scorer


def test_its_flops_count_with_the_reducer(pruned):
    exact = count_flops(pruned, convention="exact").by_module
    assert exact[REDUCER] > 0
    assert not any(name.startswith("scorer") for name in exact)


def test_training_moves_it_and_the_file_holds_it(tmp_path):
    images = embedded_test_images()[:100]
    recipe = Recipe("vim_micro", epochs=1, batch_size=20, pretrained=True, prune={"method": "dyvm", "schedule": KEEP})
    train(recipe, images, images[:20], tmp_path)
    fresh = prune(create_model("vim_micro", pretrained=True), "dyvm", KEEP).eval()
    found = load_model(tmp_path / "weights.safetensors").eval()
    some = images[:50].normalised()
    with torch.no_grad():
        kept = [trace(model, some)[1].position for model in (found, fresh)]
    assert not torch.equal(*kept), "it has learnt to keep other tokens"
    save_model(found, tmp_path / "again.safetensors")
    again = load_model(tmp_path / "again.safetensors")
    logits = [predict(model, images.batches(50))[0] for model in (found, again)]
    assert torch.equal(*logits)
