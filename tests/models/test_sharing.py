"""A pruned model and its dense one: separate modules on the same memory."""

import copy
import time

import pytest
import torch
import torch.nn.functional as F

import skimba
from skimba.models import Reducer, with_reducer

KEEP = {2: 0.5}


@pytest.fixture
def pruned(model):
    return skimba.prune(model, "hold", KEEP)


def memory(model):
    return {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}


def test_hooks_fire_on_their_own_model_only(model, pruned, images):
    calls = []
    for module in pruned.modules():
        module.register_forward_hook(lambda module, *_: calls.append(module))
    model(images)
    assert calls == []
    pruned(images)
    assert calls
    before = len(calls)
    model.layers[0].register_forward_hook(lambda *_: calls.append("dense"))
    pruned(images)
    assert "dense" not in calls
    assert len(calls) == 2 * before


def test_the_mode_is_each_models_own(model, pruned):
    for one, other in ((model, pruned), (pruned, model)):
        one.eval()
        other.eval()
        one.train()
        assert all(module.training for module in one.modules())
        assert not any(module.training for module in other.modules())


@pytest.mark.parametrize("convert", [torch.nn.Module.bfloat16, torch.nn.Module.double, lambda m: m.to("meta")])
@pytest.mark.parametrize("converted", ["pruned", "dense"])
def test_a_conversion_leaves_the_other_as_it_is(model, pruned, images, convert, converted):
    one, other = (model, pruned) if converted == "dense" else (pruned, model)
    with torch.no_grad():
        before = other(images)
        convert(one)
        assert torch.equal(other(images), before)
    assert {tensor.dtype for tensor in other.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
    assert not any(tensor.is_meta for tensor in other.state_dict().values())


def test_memory_is_shared_until_a_conversion(model, pruned, images):
    assert memory(model) == memory(pruned)
    pruned.to("cpu").float()  # changes nothing
    assert memory(model) == memory(pruned)
    assert all(own is common for own, common in zip(pruned.parameters(), model.parameters(), strict=True))
    for one, other in ((model, pruned), (pruned, model)):
        with torch.no_grad():
            before = other(images)
        optimiser = torch.optim.SGD(one.parameters(), 0.1)
        one(images).square().sum().backward()
        optimiser.step()
        with torch.no_grad():
            assert not torch.equal(other(images), before)
    pruned.double()
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in pruned.parameters()}


def test_running_means_are_shared(images):
    model = skimba.PlainMamba((24, 32), 4, embed_dim=16, depth=2, dwconv_blocks=(0,), num_classes=5)
    pruned = skimba.prune(model, "hold", {1: 0.5}).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    pruned(images)
    assert before
    for name, buffer in model.named_buffers():
        assert not torch.equal(buffer, before[name])
        assert torch.equal(buffer, dict(pruned.named_buffers())[name])


def test_gradients_and_their_wants_are_common_until_a_conversion(model, pruned, images):
    pruned(images).square().sum().backward()
    grads = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    pruned.double()
    for name, parameter in pruned.named_parameters():
        assert (parameter.grad.dtype, parameter.requires_grad) == (torch.float64, True)
        torch.testing.assert_close(parameter.grad, grads[name].double())
    model.requires_grad_(False)
    assert all(torch.equal(parameter.grad, grads[name]) for name, parameter in model.named_parameters())
    assert all(parameter.requires_grad for parameter in pruned.parameters())


def test_a_model_that_shares_nothing_is_converted_as_torch_does(model):
    parameters = list(model.parameters())
    model.double()
    assert all(own is before for own, before in zip(model.parameters(), parameters, strict=True))


def test_a_teacher_that_is_a_copy_stays_while_the_pruned_model_learns(model, pruned, images):
    teacher = copy.deepcopy(with_reducer(pruned, None)).requires_grad_(False)
    with torch.no_grad():
        wanted = teacher(images)
    optimiser = torch.optim.SGD(pruned.parameters(), 0.1)
    F.mse_loss(pruned(images), wanted).backward()
    optimiser.step()
    with torch.no_grad():
        assert torch.equal(teacher(images), wanted)


def test_a_graph_does_not_outlive_the_weights_it_was_made_with(model, pruned, images):
    """Autograd notices that the other model's step changed what this model's backward needs."""
    loss = pruned(images).square().sum()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_what_stands_in_two_places_still_does():
    model = skimba.VisionMamba((24, 32), 4, embed_dim=16, depth=3, num_classes=5)
    model.layers[2] = model.layers[0]
    model.layers[1].mixer.x_proj_b.weight = model.layers[1].mixer.x_proj.weight
    pruned = with_reducer(model, None)
    assert pruned.layers[2] is pruned.layers[0]
    assert pruned.layers[2] is not model.layers[0]
    assert pruned.layers[1].mixer.x_proj_b.weight is pruned.layers[1].mixer.x_proj.weight
    assert len(list(pruned.parameters())) == len(list(model.parameters()))


def test_settings_are_each_models_own(model, pruned):
    pruned.pretrained_cfg["mean"] = (0.5,)
    assert "mean" not in model.pretrained_cfg


def test_it_is_cheap():
    """Calibration makes hundreds: far less than a forward pass of such a model takes."""
    model = skimba.create_model("vim_small_patch16_224")
    times = []
    for _ in range(5):
        started = time.process_time()
        with_reducer(model, None)
        times.append(time.process_time() - started)
    assert min(times) < 0.05


def test_a_reducer_lacks_nothing_of_the_protocol(model, images):
    class Half:
        head_only = False

        def __call__(self, tokens, block):
            return tokens

    with pytest.raises(TypeError, match="Half has no counts_by_image, scorer, reads_scan"):
        with_reducer(model, Half())

    class Plain(Reducer):
        def __call__(self, tokens, block):
            return tokens

    with torch.no_grad():
        assert torch.equal(with_reducer(model, Plain())(images), model(images))
