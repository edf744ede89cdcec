"""The models equal the official code: outputs of that code, made with the official reference scan in float32."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import skimba
from skimba.models import LocalVim, MambaReg, PlainMamba, VideoMamba, VideoMambaClips, VisionMamba
from skimba.models.local_vim import official_walks
from skimba.models.mamba_reg import register_positions
from skimba.ops import default_backend
from skimba.ops.backends import native

GOLDEN = Path(__file__).parents[1] / "golden"
BACKBONES = GOLDEN / "backbones"
FIRST = json.loads((GOLDEN / "meta.json").read_text())
LATER = json.loads((BACKBONES / "meta.json").read_text())
SHAPES = json.loads((GOLDEN / "official_state_dict_shapes.json").read_text())
SHAPES |= json.loads((BACKBONES / "state_dict_shapes.json").read_text())
BOUND = {"reference": 1e-5, "cpu": 1e-4}


def build_first(sizes):
    """A model of the sizes in the first folder's ``meta.json``, which are ours for Vim and the official ones for PlainMamba."""
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


def build_later(family, constructor):
    """A model of the values that the official constructor took."""
    sizes = {name: constructor[name] for name in ("patch_size", "embed_dim", "depth", "num_classes")}
    img_size = constructor["img_size"]
    sizes["img_size"] = tuple(img_size) if isinstance(img_size, list) else img_size
    if family == "videomamba":
        return VideoMamba(**sizes)
    if family == "videomamba_video":
        return VideoMambaClips(**sizes, frames=constructor["num_frames"])
    if family == "local_vim":
        walks = official_walks([" ".join(walks) for walks in constructor["directions"]])
        return LocalVim(**sizes, walks=walks, class_token=constructor.get("if_cls_token", False))
    return MambaReg(**sizes, registers=constructor["num_cls_tokens"], reduction=constructor["cls_reduce"])


def golden_model(name):
    """The model with the official weights, and all the official code's tensors."""
    if name in FIRST:
        model, tensors = build_first(FIRST[name]), load_file(GOLDEN / f"{name}.safetensors")
    else:
        model = build_later(LATER[name]["family"], LATER[name]["constructor"])
        tensors = load_file(BACKBONES / f"{name}.safetensors")
    model.load_state_dict({k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")})
    return model.eval(), tensors


def relative_error(got, expected):
    return ((got - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("backend", BOUND)
@pytest.mark.parametrize("name", [*FIRST, *LATER])
def test_equals_the_official_code_in_every_block(name, backend):
    if backend == "cpu" and native.UNAVAILABLE is not None:
        pytest.skip(native.UNAVAILABLE)
    model, golden = golden_model(name)
    with torch.no_grad(), default_backend(backend):
        assert relative_error(model(golden["input"]), golden["output"]) < BOUND[backend]
        tokens = model.embed(golden["input"])
        for number, block in enumerate(model.layers):
            tokens = block(tokens)
            assert relative_error(tokens.x, golden[f"block.{number}"]) < BOUND[backend]


@pytest.mark.parametrize("name", LATER)
def test_extra_tokens_stand_where_the_official_code_puts_them(name):
    model, golden = golden_model(name)
    tokens = model.embed(golden["input"])
    assert tokens.x.shape[1] == LATER[name]["tokens"]
    class_token = LATER[name].get("class_token_position")
    places = LATER[name].get("register_positions", [] if class_token is None else [class_token])
    assert list(tokens.layout.extras) == places


@pytest.mark.parametrize("name", SHAPES)
def test_state_dict_has_the_official_names_and_shapes(name):
    with torch.device("meta"):
        model = skimba.create_model(name)
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == SHAPES[name]


def test_registers_need_room():
    assert register_positions(4, 3) == (1, 3, 5)
    with pytest.raises(ValueError, match="3 registers need at least 4 image tokens, got 3"):
        register_positions(3, 3)
