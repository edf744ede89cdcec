"""VideoMamba, Mamba-Reg and LocalVim equal the official code: outputs of that code, made with its reference scan in float32."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import skimba
from skimba.models import LocalVim, MambaReg, VideoMamba
from skimba.models.local_vim import official_walks
from skimba.models.mamba_reg import register_positions
from skimba.ops import default_backend
from skimba.ops.backends import native

GOLDEN = Path(__file__).parents[1] / "golden" / "backbones"
META = json.loads((GOLDEN / "meta.json").read_text())
SHAPES = json.loads((GOLDEN / "state_dict_shapes.json").read_text())
BOUND = {"reference": 1e-5, "cpu": 1e-4}


def build(family, constructor):
    names = ("patch_size", "embed_dim", "depth", "num_classes")
    img_size = constructor["img_size"]
    sizes = {
        "img_size": tuple(img_size) if isinstance(img_size, list) else img_size,
        **{name: constructor[name] for name in names},
    }
    if family == "videomamba":
        return VideoMamba(**sizes)
    if family == "local_vim":
        walks = official_walks([" ".join(walks) for walks in constructor["directions"]])
        return LocalVim(**sizes, walks=walks, class_token=constructor.get("if_cls_token", False))
    return MambaReg(**sizes, registers=constructor["num_cls_tokens"], reduction=constructor["cls_reduce"])


def relative_error(got, expected):
    return ((got - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("backend", BOUND)
@pytest.mark.parametrize("name", META)
def test_equals_the_official_code_in_every_block(name, backend):
    if backend == "cpu" and native.UNAVAILABLE is not None:
        pytest.skip(native.UNAVAILABLE)
    golden = load_file(GOLDEN / f"{name}.safetensors")
    model = build(META[name]["family"], META[name]["constructor"]).eval()
    model.load_state_dict({k.removeprefix("state."): v for k, v in golden.items() if k.startswith("state.")})
    with torch.no_grad(), default_backend(backend):
        assert relative_error(model(golden["input"]), golden["output"]) < BOUND[backend]
        tokens = model.embed(golden["input"])
        assert tokens.x.shape[1] == META[name]["tokens"]
        class_token = META[name].get("class_token_position")
        places = META[name].get("register_positions", [] if class_token is None else [class_token])
        assert list(tokens.layout.extras) == places
        for number, block in enumerate(model.layers):
            tokens = block(tokens)
            assert relative_error(tokens.x, golden[f"block.{number}"]) < BOUND[backend]


@pytest.mark.parametrize("name", SHAPES)
def test_state_dict_has_the_official_names_and_shapes(name):
    with torch.device("meta"):
        model = skimba.create_model(name)
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == SHAPES[name]


def test_registers_need_room():
    assert register_positions(4, 3) == (1, 3, 5)
    with pytest.raises(ValueError, match="3 registers need at least 4 image tokens, got 3"):
        register_positions(3, 3)
