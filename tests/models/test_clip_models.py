"""VideoMamba of clips: the same methods, counts and features as for pictures, over a grid (t, h, w)."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import skimba
from skimba.models import VideoMamba, VideoMambaClips
from skimba.models.checkpoint import load_checkpoint
from tests.conftest import randomise

SIZES = {"img_size": (16, 24), "patch_size": 4, "embed_dim": 16, "depth": 4, "num_classes": 5}
FRAMES = 6


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = randomise(VideoMambaClips(**SIZES, frames=FRAMES))
    torch.nn.init.normal_(model.temporal_pos_embedding)
    return model


@pytest.fixture
def clips():
    return torch.randn(2, 3, FRAMES, 16, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", sorted(skimba.METHODS))
def test_every_method_prunes_clips(model, clips, method):
    if (least := skimba.METHODS[method].part.least_share) >= 0.6:
        pytest.skip(f"{method} keeps at least {least}")
    pruned = skimba.prune(model, method, {2: 0.6})
    with torch.no_grad():
        tokens = pruned.forward_features(clips)
        logits = pruned(clips)
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    lengths = {part.layout.length for part in getattr(tokens, "parts", [tokens])}
    assert max(lengths) < 1 + FRAMES * 4 * 6
    dense, fewer = (skimba.count_flops(one, convention="exact").total for one in (model, pruned))
    assert 0.5 * dense < fewer < dense


def test_pruning_nothing_changes_nothing(model, clips):
    with torch.no_grad():
        assert torch.allclose(skimba.prune(model, "hold", {2: 1.0})(clips), model(clips), atol=1e-6)


def test_tokens_merge_across_time(model):
    """In a clip of noise that stands still, each patch is like itself in the next frame, and like nothing beside it."""
    picture = torch.randn(1, 3, 1, 16, 24, generator=torch.Generator().manual_seed(2))
    torch.nn.init.zeros_(model.temporal_pos_embedding)
    pruned = skimba.prune(model, "hold", {1: 0.75})
    tokens = pruned.forward_features(picture.expand(-1, -1, FRAMES, -1, -1))
    owner = tokens.layout.image_part(tokens.layout.positions(1, picture.device).gather(1, tokens.layout.owner))[0] - 1
    cells = torch.arange(FRAMES * 4 * 6).view(FRAMES, 4, 6)
    moved = owner != cells
    assert moved.sum() == FRAMES * 4 * 6 // 4
    across = (owner - cells)[moved].abs() % (4 * 6) == 0
    assert across.float().mean() > 0.5


def test_features_have_an_axis_of_time(model, clips):
    maps = skimba.prune(model, "hold", {2: 0.6}).forward_intermediates(clips, 2, intermediates_only=True)
    assert [tuple(one.shape) for one in maps] == [(2, 16, FRAMES, 4, 6)] * 2


def test_a_file_of_fewer_frames_loads_and_other_numbers_of_frames_run(tmp_path):
    longer = VideoMambaClips(**{**SIZES, "img_size": (24, 24)}, frames=2 * FRAMES)
    square = VideoMambaClips(**{**SIZES, "img_size": (24, 24)}, frames=FRAMES)
    save_file(square.state_dict(), tmp_path / "square.safetensors")
    report = load_checkpoint(longer, tmp_path / "square.safetensors")
    assert report.resized == ["temporal_pos_embedding"]
    more = torch.randn(1, 3, 2 * FRAMES, 24, 24)
    with torch.no_grad():
        assert torch.allclose(longer(more), square.eval()(more), atol=1e-5)


def test_a_target_is_met_on_clips(model):
    pruned = skimba.prune(model, "hold", skimba.Flops(0.6, stages=(1, 2)))
    dense, fewer = (skimba.count_flops(one, convention="exact").total for one in (model, pruned))
    assert abs(fewer / dense - 0.6) < 0.02


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 3, 16, 24), r"images must be \(b 3 frames height width\), got \(1, 3, 16, 24\)"),
        ((1, 1, 6, 16, 24), r"images must be \(b 3 frames height width\)"),
        ((1, 3, 6, 3, 24), r"at least one patch \(4 px\)"),
        ((1, 3, 0, 16, 24), r"at least one patch"),
    ],
)
def test_other_inputs_are_refused(model, shape, words):
    with pytest.raises(ValueError, match=words):
        model(torch.zeros(shape))


def test_pictures_are_refused_clips():
    with pytest.raises(ValueError, match=r"images must be \(b 3 height width\)"):
        VideoMamba(**SIZES)(torch.zeros(1, 3, 6, 16, 24))


def owners_frames(tokens):
    """``(b t h w)`` the frame in which the owner of each position stands."""
    place = tokens.layout.positions(len(tokens.x), tokens.x.device).gather(1, tokens.layout.owner) - 1
    return tokens.layout.image_part(place) // (tokens.grid[1] * tokens.grid[2])


@pytest.mark.parametrize("likeness", ["ward_near", "cosine", "local"])
@pytest.mark.parametrize("partners", ["all", "near"])
def test_pairs_within_a_frame_never_cross_frames(model, clips, likeness, partners):
    still = clips[:, :, :1].expand_as(clips)  # each patch is likest itself in another frame
    torch.nn.init.zeros_(model.temporal_pos_embedding)
    frames = torch.arange(FRAMES)[:, None, None].expand(2, FRAMES, 4, 6)
    pairs = skimba.Pairs("snake", likeness, partners=partners)
    for schedule in ({1: 0.5}, {1: 0.6, 2: 0.5, 3: 0.3}, {1: FRAMES + 1}, {2: FRAMES}):
        crossed = {}
        for within in ("frame", "clip"):
            method = replace(skimba.METHODS["hold"], reduction=replace(pairs, within=within))
            crossed[within] = owners_frames(skimba.prune(model, method, schedule).forward_features(still)) != frames
        assert not crossed["frame"].any()
        assert crossed["clip"].any() or likeness == "local"


def test_frames_merge_when_each_is_down_to_one_token(model, clips):
    method = replace(skimba.METHODS["hold"], reduction=skimba.Pairs("snake", "ward_near", within="frame"))
    tokens = skimba.prune(model, method, {1: FRAMES - 2}).forward_features(clips)
    assert tokens.layout.image_count == FRAMES - 2
    whole = owners_frames(tokens).flatten(2)
    assert torch.equal(whole, whole[..., :1].expand_as(whole))  # a frame has one owner


def test_within_a_frame_is_the_same_on_pictures():
    torch.manual_seed(0)
    pictures, vim = torch.randn(2, 3, 16, 24), randomise(VideoMamba(**SIZES))
    method = replace(skimba.METHODS["hold"], reduction=replace(skimba.METHODS["hold"].part, within="frame"))
    found, expected = (skimba.prune(vim, one, {1: 0.5, 2: 0.5})(pictures) for one in (method, "hold"))
    assert torch.equal(found, expected)


def test_within_a_frame_is_written_and_read():
    method = replace(skimba.METHODS["hold"], reduction=skimba.Pairs("snake", "ward", within="frame"))
    assert skimba.Method.from_dict(method.to_dict()) == method
    with pytest.raises(ValueError, match="within must be 'clip' or 'frame', got 'second'"):
        skimba.Pairs(within="second")
    with pytest.raises(ValueError, match="counts must be None"):
        replace(method, counts="mass")


def test_stages_are_chosen_on_clips(model, clips):
    pruned = skimba.prune(model, "hold", skimba.Flops(0.7, images=clips))
    dense, fewer = (skimba.count_flops(one, convention="exact").total for one in (model, pruned))
    assert fewer / dense <= 0.7
