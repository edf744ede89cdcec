"""Every model keeps timm's contract, read off timm's own vision transformer."""

import inspect
from dataclasses import replace

import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import adapt_input_conv
from timm.models.vision_transformer import VisionTransformer
from timm.optim import create_optimizer_v2

import skimba
from skimba.models import FeatureMaps
from skimba.models.checkpoint import adapt_input_channels
from skimba.models.pooling import POOLING
from skimba.tokens import RESTORE
from tests.conftest import TINY, randomise, same_kind

# Arguments of timm's that these models have no use for: attention masks.
UNUSED = {"attn_mask", "is_causal"}
METHODS = [
    "forward",
    "forward_features",
    "forward_head",
    "forward_intermediates",
    "get_classifier",
    "reset_classifier",
    "group_matcher",
    "set_grad_checkpointing",
    "no_weight_decay",
    "prune_intermediate_layers",
]
ATTRIBUTES = ["num_classes", "num_features", "head_hidden_size", "embed_dim", "global_pool", "in_chans", "feature_info"]
KEEP = {1: 0.5, 3: 0.7}


def sequence_of(features):
    return features.x.shape[1]


@pytest.mark.parametrize("method", METHODS)
def test_methods_have_timms_arguments(model, method):
    timms = inspect.signature(getattr(VisionTransformer, method)).parameters
    ours = inspect.signature(getattr(type(model), method)).parameters
    assert list(ours)[: len(timms) - len(UNUSED & set(timms))] == [name for name in timms if name not in UNUSED]
    for name in timms.keys() & ours.keys():
        assert ours[name].default == timms[name].default or method == "forward_intermediates", name


def test_attributes_are_those_of_timms_models(model):
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=4)
    for name in ATTRIBUTES:
        assert type(getattr(model, name)) is type(getattr(vit, name)), name
    assert model.default_cfg is model.pretrained_cfg
    assert [info.keys() for info in model.feature_info] == [info.keys() for info in vit.feature_info]


@pytest.mark.parametrize(
    "arguments", ["num_classes", "global_pool", "drop_rate", "drop_path_rate", "in_chans", "img_size"]
)
def test_constructors_take_timms_arguments(model, arguments):
    assert arguments in inspect.signature(VisionTransformer).parameters
    assert arguments in inspect.signature(type(model)).parameters


@pytest.mark.parametrize("way", [None, "top", "hold", "mass"])
def test_head_and_features_make_the_model(model, images, way):
    if way == "mass":
        by_image = replace(skimba.METHODS["hold"], head_only=False, counts="mass")
        model = skimba.prune(model, by_image, {1: 0.9, 2: 0.6})
    elif way is not None:
        model = skimba.prune(model, replace(skimba.METHODS[way], head_only=False), KEEP)
    with torch.no_grad():
        features = model.forward_features(images)
        read = model.forward_head(features, pre_logits=True)
        assert read.shape == (3, model.head_hidden_size)
        assert torch.equal(model.forward_head(features), model(images))
        torch.testing.assert_close(model.get_classifier()(read), model(images))


def test_a_model_of_no_classes_gives_what_the_head_would_read(model, images):
    with torch.no_grad():
        read = model.forward_head(model.forward_features(images), pre_logits=True)
        model.reset_classifier(0)
        assert torch.equal(model(images), read)
    assert isinstance(model.get_classifier(), torch.nn.Identity)
    bare = same_kind(model, num_classes=0)
    assert bare.state_dict().keys() == model.state_dict().keys()
    assert bare(images).shape == (3, model.head_hidden_size)
    model.bfloat16().reset_classifier(7)
    assert model.num_classes == 7
    assert model(images.bfloat16()).shape == (3, 7)


def test_what_the_head_reads_is_a_choice(model, images):
    with torch.no_grad():
        tokens = model.forward_features(images)
        normed = model.final_norm(tokens.stream)
        image = normed.gather(1, tokens.image_places[..., None].expand(-1, -1, 16))
        expected = {"avg": image.mean(1), "max": image.amax(1), "": normed}
        if model.class_token_count:
            extra = normed.gather(1, tokens.extra_places[..., None].expand(-1, -1, 16))
            expected["token"] = extra[:, 0] if extra.shape[1] == 1 else model.read(tokens)
        assert expected.keys() == POOLING.keys() - (set() if model.class_token_count else {"token"})
        for name, wanted in expected.items():
            model.reset_classifier(0, name)
            torch.testing.assert_close(model(images), wanted)
    with pytest.raises(ValueError, match="unknown global_pool 'map'; known: 'token', 'avg', 'max', ''"):
        model.reset_classifier(3, "map")
    if not model.class_token_count:
        with pytest.raises(ValueError, match="has no class token"):
            model.reset_classifier(3, "token")


def test_the_mean_counts_a_token_for_all_that_it_owns(model, images):
    """After merging, the mean over owners is the mean over the grid that shows them."""
    pruned = skimba.prune(model, "hold", {2: 0.5})
    pruned.reset_classifier(0, "avg")
    with torch.no_grad():
        _, (last,) = pruned.forward_intermediates(images, 1, norm=True, restore="owner")
        torch.testing.assert_close(pruned(images), last.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_dropout_before_the_head_acts_in_training_only(images):
    for make in TINY.values():
        model = randomise(make(drop_rate=0.5))
        with torch.no_grad():
            assert torch.equal(model(images), model(images))
            model.train()
            assert not torch.equal(model(images), model(images))


@pytest.mark.parametrize("restore", RESTORE)
def test_dense_features_are_the_streams_after_the_blocks(model, images, restore):
    with torch.no_grad():
        tokens, streams = model.embed(images), []
        for block in model.layers:
            tokens = block(tokens)
            streams.append(tokens.layout.image_part(tokens.stream))
        final, maps = model.forward_intermediates(images, restore=restore)
        lists = model.forward_intermediates(images, output_fmt="NLC", intermediates_only=True, restore=restore)
        assert torch.equal(model.forward_head(final), model(images))
    for stream, channels_first, listed in zip(streams, maps, lists, strict=True):
        assert torch.equal(channels_first, stream.permute(0, 3, 1, 2))
        assert torch.equal(listed, stream.flatten(1, 2))
        assert channels_first.is_contiguous()


def test_indices_are_chosen_as_timm_chooses_them(model, images):
    def maps(indices, **how):
        with torch.no_grad():
            return model.forward_intermediates(images, indices, intermediates_only=True, **how)

    every = maps(None)
    for indices, blocks in ((2, [2, 3]), ([0, 2], [0, 2]), ((-1, -4), [3, 0]), (4, [0, 1, 2, 3])):
        found = maps(indices)
        assert len(found) == len(blocks)
        assert all(torch.equal(one, every[block]) for one, block in zip(found, blocks, strict=True))
    for wrong in (0, 5, [4], [-5], []):
        with pytest.raises(ValueError, match=r"indices are blocks of 0 … 3, or up to 4 last ones, got"):
            maps(wrong)
    with pytest.raises(ValueError, match="unknown output_fmt 'NHWC'; known: NCHW, NLC"):
        maps(1, output_fmt="NHWC")


def test_no_block_runs_after_the_last_one_asked_for(model, images):
    ran = []
    for number, block in enumerate(model.layers):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    model.forward_intermediates(images, [1], stop_early=True)
    assert ran == [0, 1]
    model.forward_intermediates(images, [1])
    assert ran == [0, 1, 0, 1, 2, 3]


def test_extra_tokens_and_dictionaries_as_timm_gives_them(model, images):
    found = model.forward_intermediates(images, 2, return_prefix_tokens=True, output_dict=True, norm=True)
    wanted = {"image_intermediates", "image_features"}
    assert found.keys() == wanted | ({"image_intermediates_prefix"} if model.class_token_count else set())
    listed = model.forward_intermediates(images, 2, return_prefix_tokens=True, intermediates_only=True, norm=True)
    if model.class_token_count:
        assert [(one.shape, extra.shape) for one, extra in listed] == [
            ((3, 16, 6, 8), (3, model.class_token_count, 16))
        ] * 2
        tokens = model.forward_features(images)
        extra = model.final_norm(tokens.stream).gather(1, tokens.extra_places[..., None].expand(-1, -1, 16))
        torch.testing.assert_close(listed[-1][1], extra)


def stages(model, images, method):
    pruned = skimba.prune(model, method, KEEP)
    with torch.no_grad():
        tokens, before, after = pruned.embed(images), [], []
        for number, block in enumerate(pruned.layers, 1):
            tokens = block(tokens, record=pruned.reducer.reads_scan(number))
            before.append(tokens)
            tokens = pruned.reducer(tokens, number)
            after.append(tokens)
    return pruned, before, after


def test_after_hold_every_position_shows_its_owner(model, images):
    pruned, _, after = stages(model, images, "hold")
    with torch.no_grad():
        maps = pruned.forward_intermediates(images, intermediates_only=True, restore="owner")
    for tokens, found in zip(after, maps, strict=True):
        assert torch.equal(found, tokens.scatter().permute(0, 3, 1, 2))
    assert after[-1].owner is not None


def test_last_shows_a_removed_position_as_it_was(model, images):
    pruned, before, after = stages(model, images, "top")
    with torch.no_grad():
        *_, last = pruned.forward_intermediates(images, intermediates_only=True, restore="last", output_fmt="NLC")
    expected = before[0].stream.clone()
    for tokens in (before[2], after[3]):
        for image, places in enumerate(tokens.position):
            expected[image, places] = tokens.stream[image]
    torch.testing.assert_close(last, after[0].layout.image_part(expected).flatten(1, 2))


@pytest.mark.parametrize("restore", RESTORE)
@pytest.mark.parametrize("size", [(24, 32), (40, 28)])
def test_groups_of_unequal_counts_restore_each_by_itself(model, restore, size):
    # Images without near ties: rounding, which differs with the size of the batch, may decide those.
    images = torch.randn(5, 3, *size, generator=torch.Generator().manual_seed(5))
    images[0] = images[0].mean()  # one that needs few tokens
    by_image = replace(skimba.METHODS["hold"], reduction=skimba.Pairs(likeness="ward"), counts="mass")
    pruned = skimba.prune(model, by_image, {1: 0.7, 2: 0.55})  # at the second stage they still differ on every family
    with torch.no_grad():
        together = pruned.forward_intermediates(images, intermediates_only=True, restore=restore)
        final, _ = pruned.forward_intermediates(images, 1, restore=restore)
        alone = [
            pruned.forward_intermediates(image[None], intermediates_only=True, restore=restore) for image in images
        ]
    assert len({part.x.shape[1] for part in final.parts}) > 1
    for block, found in enumerate(together):
        expected = torch.cat([maps[block] for maps in alone])
        assert found.shape == (5, 16, size[0] // 4, size[1] // 4)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_features_learn_through_every_restore(model, images):
    for restore in RESTORE:
        pruned = skimba.prune(model, "hold", KEEP)
        maps = pruned.forward_intermediates(images, 2, intermediates_only=True, restore=restore)
        model.zero_grad()
        sum(one.square().sum() for one in maps).backward()
        blocks = [p for name, p in pruned.named_parameters() if ".layers." in f".{name}"]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in blocks[: len(blocks) // 2])


@pytest.mark.parametrize("create", [skimba.create_model, timm.create_model])
def test_features_only_gives_maps(create):
    features = create("vim_micro", pretrained=True, features_only=True, out_indices=(1, -3))
    images = torch.randn(2, 1, 28, 28)
    with torch.no_grad():
        maps = features.eval()(images)
        whole = skimba.create_model("vim_micro", pretrained=True).eval()
        expected = whole.forward_intermediates(images, [1, 5], intermediates_only=True)
    assert all(torch.equal(one, other) for one, other in zip(maps, expected, strict=True))
    assert features.feature_info.channels() == [64, 64]
    assert features.feature_info.reduction() == [2, 2]
    assert features.feature_info.module_name() == ["layers.1", "layers.5"]
    assert len(features.model.layers) == 6
    with pytest.raises(TypeError, match="got width"):
        create("vim_micro", features_only=True, width=3)


def test_maps_of_a_pruned_model(model, images):
    pruned = skimba.prune(model, "hold", KEEP)
    with torch.no_grad():
        expected = pruned.forward_intermediates(images, [2], norm=True, intermediates_only=True, restore="last")
        found = FeatureMaps(pruned, [2], norm=True, restore="last")(images)
    assert torch.equal(found[0], expected[0])
    assert len(model.layers) == 4, "the dense model is not cut"


@pytest.mark.parametrize("method", [None, "hold", "top", "dyvm"])
def test_checkpointing_computes_again_and_changes_nothing(model, images, method):
    """Inner values are not kept but computed in the backward pass: the same gradients, each block run twice."""
    if method is not None:
        model = skimba.prune(model, replace(skimba.METHODS[method], head_only=False), KEEP)
    model.train()
    grads, kept = {}, {}
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        ran, bytes_kept = [], []
        hook = model.layers[1].register_forward_pre_hook(lambda *_, ran=ran: ran.append(1))
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=bytes_kept: (sizes.append(t.numel()), t)[1], lambda t: t
        ):
            torch.manual_seed(0)
            loss = model(images).square().sum()
        kept[enable] = sum(bytes_kept)
        model.zero_grad()
        loss.backward()
        hook.remove()
        grads[enable] = {name: p.grad.clone() for name, p in model.named_parameters()}
        assert len(ran) == (2 if enable else 1)
    assert kept[True] < 0.7 * kept[False]  # what is left is of the stem, the head and the reducer
    for name, grad in grads[False].items():
        torch.testing.assert_close(grads[True][name], grad, msg=name)


def test_layer_wise_decay_reaches_every_depth(model):
    optimiser = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    scale = {names[id(p)]: group["lr_scale"] for group in optimiser.param_groups for p in group["params"]}
    assert scale.keys() == dict(model.named_parameters()).keys()
    depth = len(model.layers)

    def depth_from_the_head(name):
        if (part := f"{model.parts.layers}.") in name:
            return depth - int(name.split(part)[1].split(".")[0])
        if name.startswith(model.parts.head):
            return 0
        return 1 if name.startswith(model.parts.norm) else depth + 1  # the norm goes with the last block

    for name, found in scale.items():
        assert found == pytest.approx(0.5 ** depth_from_the_head(name)), name


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_the_first_convolution_is_adapted_as_timm_does(channels):
    weight = torch.randn(5, 3, 2, 2)
    torch.testing.assert_close(adapt_input_channels(weight, channels), adapt_input_conv(channels, weight))


@pytest.mark.parametrize("name", ["vim_micro_patch4_56", "plain_mamba_micro_patch4_56"])
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_pretrained_weights_take_other_channels(name, channels):
    """A grey picture is seen as before; for one channel, whose weights are the sum of all."""
    model = timm.create_model(name, pretrained=True, in_chans=channels).eval()
    own = skimba.create_model(name, pretrained=True).eval()
    assert len(resolve_model_data_config(model)["mean"]) == channels
    grey = torch.randn(2, 1, 56, 56)
    with torch.no_grad():
        found, expected = model(grey.expand(-1, channels, -1, -1)), own(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_checkpoint_of_other_channels_is_refused_unless_channels_are_asked_for(tmp_path):
    model = skimba.create_model("vim_micro", in_chans=3)
    torch.save(model.state_dict(), tmp_path / "m.pth")
    other = skimba.create_model("vim_micro")
    with pytest.raises(ValueError, match=r"patch_embed.proj.weight: got \(64, 3, 2, 2\)"):
        skimba.load_checkpoint(other, tmp_path / "m.pth")
    report = skimba.load_checkpoint(other, tmp_path / "m.pth", adapt_channels=True)
    assert report.adapted == ["patch_embed.proj.weight"]
