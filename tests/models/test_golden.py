"""The models equal the official code: outputs of that code, made with the official reference scan in float32."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import skimba
from skimba.models import PlainMamba, VisionMamba
from skimba.ops import default_backend, native

GOLDEN = Path(__file__).parents[1] / "golden"
SIZES = json.loads((GOLDEN / "meta.json").read_text())
OFFICIAL_SHAPES = json.loads((GOLDEN / "official_state_dict_shapes.json").read_text())
BOUND = {"reference": 1e-5, "cpu": 1e-4}


def build(sizes):
    sizes = dict(sizes)
    if sizes.pop("family") == "vim":
        return VisionMamba(**sizes)
    return PlainMamba(
        img_size=sizes["img_size"],
        patch_size=sizes["patch_size"],
        embed_dim=sizes["embed_dims"],
        depth=sizes["num_layers"],
        stem_convs=sizes["num_convs_patch_embed"],
        dwconv_blocks=sizes["layers_with_dwconv"],
        num_classes=sizes["num_classes"],
    )


def relative_error(got, expected):
    return ((got - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("backend", BOUND)
@pytest.mark.parametrize("name", SIZES)
def test_equals_the_official_code_in_every_block(name, backend):
    if backend == "cpu" and native.UNAVAILABLE is not None:
        pytest.skip(native.UNAVAILABLE)
    golden = load_file(GOLDEN / f"{name}.safetensors")
    model = build(SIZES[name]).eval()
    model.load_state_dict({k.removeprefix("state."): v for k, v in golden.items() if k.startswith("state.")})
    with torch.no_grad(), default_backend(backend):
        assert relative_error(model(golden["input"]), golden["output"]) < BOUND[backend]
        tokens = model.embed(golden["input"])
        for number, block in enumerate(model.layers):
            tokens = block(tokens)
            assert relative_error(tokens.x, golden[f"block.{number}"]) < BOUND[backend]


@pytest.mark.parametrize("name", OFFICIAL_SHAPES)
def test_state_dict_has_the_official_names_and_shapes(name):
    with torch.device("meta"):
        model = skimba.create_model(name)
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == OFFICIAL_SHAPES[name]
