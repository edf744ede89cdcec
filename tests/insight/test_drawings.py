"""Every picture, light and dark: it shows what it was given, and its size and words are as they should be."""

import io
from functools import cache

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

import skimba
from skimba.insight import (
    Changes,
    Relevance,
    hidden_attention,
    pruning_changes,
    receptive_field,
    relevance,
    scan_times,
)
from skimba.insight.drawing import draw_stages
from skimba.insight.maps import draw_attention, draw_attention_matrix, draw_receptive_fields, draw_relevance
from skimba.insight.plots import draw_changes, draw_decay_lengths, draw_memory
from skimba.insight.style import THEMES, find_theme
from tests.conftest import randomise, tiny_plain_mamba, tiny_vim


@pytest.fixture(scope="module")
def dense():
    return randomise(tiny_vim())


@pytest.fixture(scope="module")
def pictures():
    return torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def figures(dense, pictures):
    """A function from a theme to all figures by name."""
    pruned = {name: skimba.prune(dense, name, {1: 0.5}) for name in ("condensed", "top", "hold")}
    models = {"dense": dense, **pruned}
    times = {title: scan_times(model, pictures, 3) for title, model in models.items()}
    fields = {title: receptive_field(model, pictures, position=24) for title, model in models.items()}
    rows = hidden_attention(pruned["hold"], pictures, 3, positions=[24, 30])
    whole = hidden_attention(pruned["top"], pictures, 3)
    speaks = relevance(dense, pictures)
    changes = pruning_changes(dense, pruned, pictures)

    @cache
    def make(theme):
        return {
            "memory": draw_memory(times, theme=theme),
            "decay_lengths": draw_decay_lengths(times, theme=theme),
            "changes": draw_changes(changes, theme=theme),
            "attention": draw_attention(rows, pictures[1], image=1, theme=theme),
            "attention_matrix": draw_attention_matrix(whole, theme=theme),
            "relevance": draw_relevance(speaks, pictures, theme=theme),
            "receptive_fields": draw_receptive_fields(fields, theme=theme),
            "stages": draw_stages({"hold": pruned["hold"]}, pictures, pictures, theme=theme),
        }

    return make


def texts(figure):
    return " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


@pytest.mark.parametrize("theme", ["dark", pytest.param("light", marks=pytest.mark.slow)])
def test_pictures_are_written_on_the_paper_of_their_theme(figures, theme):
    paper = tuple(round(255 * part) for part in to_rgb(THEMES[theme].paper))
    for name, figure in figures(theme).items():
        file = io.BytesIO()
        figure.savefig(file, dpi=40)
        picture = Image.open(file).convert("RGB")
        assert picture.getpixel((0, 0)) == paper, name
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 20, name


def test_pictures_say_what_they_show(figures):
    found = {name: texts(figure) for name, figure in figures("light").items()}
    for words, name in {
        "dense condensed top hold": "memory",
        "Time that has passed": "memory",
        "positions until 1/e is left": "decay_lengths",
        "sequence: 49": "decay_lengths",
        "Output of the scans": "changes",
        "change / size of dense": "changes",
        "class token": "attention",
        "rows back": "attention",
        "all scans": "attention_matrix",
        "position that reads": "attention_matrix",
        "80 % in": "receptive_fields",
        "hold": "stages",
    }.items():
        assert all(word in found[name] for word in words.split()), (name, words, found[name])


def test_lines_are_the_values(figures, dense, pictures):
    changes = pruning_changes(dense, {"top": skimba.prune(dense, "top", {1: 0.5})}, pictures)
    axes = draw_changes(changes).axes[0]
    drawn = next(line for line in axes.lines if line.get_marker() == "o").get_ydata()
    assert torch.allclose(torch.tensor(drawn), changes.scan[0])


def test_dropped_patches_are_left_blank(pictures):
    model = skimba.prune(randomise(tiny_plain_mamba()), "top", {1: 0.5})
    found = hidden_attention(model, pictures, 2, positions=[5])
    image = draw_attention(found, pictures[0]).axes[1].images[0].get_array()
    assert image.mask.sum() == 24


def test_what_cannot_be_drawn_is_said(dense, pictures):
    with pytest.raises(ValueError, match="at most 8 positions can be drawn, got 49: see draw_attention_matrix"):
        draw_attention(hidden_attention(dense, pictures, 1), pictures[0])
    clip = Relevance(torch.rand(1, 2, 6, 8), torch.zeros(1))
    with pytest.raises(ValueError, match=r"of a grid \(h, w\); got a clip's, \(2, 6, 8\)"):
        draw_relevance(clip, pictures[:1])
    with pytest.raises(ValueError, match="unknown theme 'sepia'; known: light, dark"):
        draw_relevance(Relevance(torch.rand(1, 6, 8), torch.zeros(1)), pictures[:1], theme="sepia")
    own = find_theme("dark")
    assert draw_changes(Changes(("a",), *torch.rand(3, 1, 4), torch.zeros(1, 4).bool()), theme=own).get_facecolor()
