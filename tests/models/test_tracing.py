"""Nothing that a model keeps belongs to a trace: export, compile and meta tensors, before and after eager calls."""

import pytest
import torch

import skimba
from tests.conftest import TINY, randomise

WAYS = {"dense": None, "hold": "hold", "top": "top"}


def made(family, way):
    torch.manual_seed(0)
    model = randomise(TINY[family](depth=2))  # one block before the stage, one after it
    return model if WAYS[way] is None else skimba.prune(model, WAYS[way], {1: 0.5})


VIM = {("vim", way) for way in WAYS}
PLAIN_MAMBA, LOCAL_VIM = {("plain_mamba", "hold")}, {("local_vim_middle", "hold")}


def on(*fast):
    """The test's model is one of each family and way: by default of these, of the rest when slow."""
    chosen = set().union(*fast)
    pairs = [(family, way) for family in TINY for way in WAYS]
    cases = [pytest.param(pair, marks=() if pair in chosen else pytest.mark.slow, id="-".join(pair)) for pair in pairs]
    return pytest.mark.parametrize("any_model", cases, indirect=True)


@pytest.fixture
def any_model(request):
    return made(*request.param)


@on(VIM)
@torch.no_grad()
def test_an_exported_program_equals_the_model_and_leaves_no_trace(any_model, images):
    # The export comes first: what it cached would poison the eager calls.
    program = torch.export.export(any_model, (images,)).module()
    expected = any_model(images)
    assert type(expected) is torch.Tensor
    torch.testing.assert_close(program(images), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(program(images.flip(0)), any_model(images.flip(0)), rtol=1e-5, atol=1e-6)


@on(PLAIN_MAMBA, {("vim", "top")})
@torch.no_grad()
def test_the_batch_of_an_exported_program_may_be_dynamic(any_model, images):
    batch = torch.export.Dim.DYNAMIC
    program = torch.export.export(any_model, (images,), dynamic_shapes=(({0: batch}),)).module()
    for number in (1, 2, 5):
        pictures = torch.randn(number, 3, 24, 32)
        torch.testing.assert_close(program(pictures), any_model(pictures), rtol=1e-5, atol=1e-6)


@on(VIM, LOCAL_VIM)
@torch.no_grad()
def test_a_model_compiles_without_a_graph_break(any_model, images):
    torch.compiler.reset()
    compiled = torch.compile(any_model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images), any_model(images), rtol=1e-5, atol=1e-6)


@on()
@torch.no_grad()
def test_inductor_compiles_the_whole_graph(any_model, images):
    torch.compiler.reset()
    compiled = torch.compile(any_model, fullgraph=True)
    torch.testing.assert_close(compiled(images), any_model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", TINY)
@torch.no_grad()
def test_a_forward_on_the_meta_device_does_not_break_the_next_model(family, way):
    grid = (28, 36)  # a size that no other test has walked over
    with torch.device("meta"):
        shape = made(family, way)(torch.randn(1, 3, *grid)).shape
    logits = made(family, way)(torch.randn(1, 3, *grid))
    assert logits.shape == shape
    assert logits.isfinite().all()
