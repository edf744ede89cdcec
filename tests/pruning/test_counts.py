"""Each image keeps its own number of tokens."""

from dataclasses import replace

import pytest
import torch

from skimba.cost.flops import count_flops
from skimba.data import embedded_test_images
from skimba.insight import trace
from skimba.pruning import METHODS, Flops, Merge, Method, prune, read_settings
from skimba.pruning.schedule import mass_counts
from skimba.store import create_model
from skimba.tokens import HOLD, Groups
from tests.conftest import TINY, randomise

BY_IMAGE = {
    "top": replace(METHODS["top"], counts="mass"),
    "hold": replace(METHODS["hold"], counts="mass"),
    "merge": Method(Merge(), HOLD, counts=mass_counts),
}


def different():
    return embedded_test_images()[:6].normalised()


@pytest.mark.parametrize("method", BY_IMAGE.values(), ids=BY_IMAGE)
@pytest.mark.parametrize("name", ["vim_micro", "plain_mamba_micro"])
def test_each_image_keeps_its_own_number_of_tokens(name, method):
    model, images = create_model(name, pretrained=True).eval(), different()
    pruned = prune(model, method, {2: 0.8, 5: 0.8})
    with torch.no_grad():
        together = pruned(images)
        alone = [pruned(image[None]) for image in images]
        counts = [[stage.layout.image_count for stage in trace(pruned, image[None])] for image in images]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)
    assert len({tuple(count) for count in counts}) > 2, "the images keep different numbers"
    assert all(one > two >= three for one, two, three in counts)
    features = pruned.forward_features(images)
    assert isinstance(features, Groups)
    assert sorted(torch.cat(features.rows).tolist()) == list(range(len(images)))
    mean = sum(count_flops(pruned, convention="exact", images=image[None]).total for image in images) / len(images)
    assert count_flops(pruned, convention="exact", images=images).total == pytest.approx(mean, rel=1e-6)
    with pytest.raises(ValueError, match="trace them one by one"):
        trace(pruned, images)
    assert prune(model, **read_settings(pruned.reducer.to_dict())).reducer == pruned.reducer


def test_a_target_counts_on_images_where_counts_depend_on_them():
    model, images = create_model("vim_micro", pretrained=True).eval(), different()
    pruned = prune(model, BY_IMAGE["hold"], Flops(0.6, images=images))
    dense = count_flops(model, convention="exact").total
    assert 0.55 < count_flops(pruned, convention="exact", images=images).total / dense <= 0.6
    with pytest.raises(ValueError, match="a target needs some, images="):
        prune(model, BY_IMAGE["hold"], Flops(0.6))
    with pytest.raises(ValueError, match="count on some, images="):
        count_flops(pruned)
    with pytest.raises(ValueError, match="unknown counts 'p'"):
        replace(METHODS["hold"], counts="p")


@pytest.mark.parametrize("method", BY_IMAGE.values(), ids=BY_IMAGE)
@pytest.mark.parametrize(
    "name", [name for name in TINY if name != "mamba_reg"]
)  # its registers need tokens between them
def test_one_patch_is_kept(name, method):
    model = randomise(TINY[name]())
    image = torch.randn(2, 3, 4, 4)
    for pruning in (method, replace(method, counts=None)):
        with torch.no_grad():
            torch.testing.assert_close(prune(model, pruning, {1: 1e-9, 3: 0.5})(image), model(image))


def test_mass_keeps_the_fewest_tokens_that_hold_the_share():
    weight = torch.tensor([[5.0, 1, 3, 1], [1, 1, 1, 1], [0, 0, 7, 0], [0, 0, 0, 0]])
    assert mass_counts(weight, 0.8).tolist() == [2, 4, 1, 1]
    assert mass_counts(weight, 0.5).tolist() == [1, 2, 1, 1]
