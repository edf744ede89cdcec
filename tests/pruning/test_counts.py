"""Each image keeps its own number of tokens."""

import pytest
import torch

from skimba.cost.flops import count_flops
from skimba.data import embedded_test_images
from skimba.insight import trace
from skimba.pruning import prune
from skimba.pruning.schedule import mass_counts
from skimba.store import create_model
from skimba.tokens import Groups

BY_IMAGE = [{"preset": "top"}, {"preset": "hold"}, {"preset": "top", "reduction": "merge", "align": "hold"}]


def different():
    return embedded_test_images()[:12].normalised()


@pytest.mark.parametrize("settings", BY_IMAGE, ids=["top", "hold", "merge"])
@pytest.mark.parametrize("name", ["vim_micro", "plain_mamba_micro"])
def test_each_image_keeps_its_own_number_of_tokens(name, settings):
    model, images = create_model(name, pretrained=True).eval(), different()
    pruned = prune(model, keep={2: 0.8, 5: 0.8}, counts="mass", **settings)
    with torch.no_grad():
        together = pruned(images)
        alone = [pruned(image[None]) for image in images]
        counts = [[stage.layout.image_count for stage in trace(pruned, image[None])] for image in images]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)
    assert len({tuple(count) for count in counts}) > 2, "the images keep different numbers"
    assert all(one > two >= three for one, two, three in counts)
    features = pruned.forward_features(images)
    assert isinstance(features, Groups)
    assert sorted(torch.cat(features.rows).tolist()) == list(range(12))
    mean = sum(count_flops(pruned, convention="exact", images=image[None]).total for image in images) / 12
    assert count_flops(pruned, convention="exact", images=images).total == pytest.approx(mean, rel=1e-6)
    with pytest.raises(ValueError, match="trace them one by one"):
        trace(pruned, images)
    assert prune(model, **pruned.reducer.settings()).reducer == pruned.reducer


def test_a_target_counts_on_images_where_counts_depend_on_them():
    model, images = create_model("vim_micro", pretrained=True).eval(), different()
    pruned = prune(model, "hold", target_flops=0.6, counts="mass", images=images)
    dense = count_flops(model, convention="exact").total
    assert 0.55 < count_flops(pruned, convention="exact", images=images).total / dense <= 0.6
    with pytest.raises(ValueError, match="a target needs some, images="):
        prune(model, "hold", target_flops=0.6, counts="mass")
    with pytest.raises(ValueError, match="count on some, images="):
        count_flops(pruned)
    with pytest.raises(ValueError, match="unknown counts 'p'"):
        prune(model, "hold", counts="p")


def test_mass_keeps_the_fewest_tokens_that_hold_the_share():
    weight = torch.tensor([[5.0, 1, 3, 1], [1, 1, 1, 1], [0, 0, 7, 0], [0, 0, 0, 0]])
    assert mass_counts(weight, 0.8).tolist() == [2, 4, 1, 1]
    assert mass_counts(weight, 0.5).tolist() == [1, 2, 1, 1]
