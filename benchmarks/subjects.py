"""What the study is of: models with the data that they know. Those in the package, and others trained for the study alone.

    python -m benchmarks.subjects "vim_micro_patch4_56, 20 classes"

trains one of the latter, on one core in half an hour (resumable), and writes its file under benchmarks/weights.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from skimba.data import DEBIAN_FOLDER, FashionScenes, LabelledImages, MovingItems, load_fashion_mnist
from skimba.data.loading import in_order, load_batches
from skimba.data.pictures import SelectedClips
from skimba.models import TokenModel
from skimba.store import create_model
from skimba.tasks import task_of
from skimba.training import Recipe, train

WEIGHTS = Path(__file__).parent / "weights"
RUNS = Path(tempfile.gettempdir()) / "skimba-subjects"  # where an interrupted training goes on
BATCH = 100
CLIPS = 2_000  # of the 10,000 test clips, the first
TEXTURES = frozenset({"brick", "coins", "grass", "gravel", "hubble_deep_field", "immunohistochemistry"})
GROUNDS = ("thing", "texture")  # that a photograph shows


def items(split: str) -> LabelledImages:
    return load_fashion_mnist(DEBIAN_FOLDER, split)


def scenes(split: str) -> LabelledImages:
    return FashionScenes(items(split), split).labelled()


def scenes_and_grounds(split: str) -> LabelledImages:
    """Scenes of 20 classes: the item, and whether the photograph behind it is of a thing or a texture."""
    shown = FashionScenes(items(split), split)
    known = shown.labelled()
    texture = torch.tensor([shown.ground(index) in TEXTURES for index in range(len(shown))])
    classes = tuple(f"{item} on a {ground}" for item in known.classes for ground in GROUNDS)
    return LabelledImages(known.pixels, len(GROUNDS) * known.labels + texture, classes, known.mean, known.std)


DATA: dict[str, Callable[[str], LabelledImages]] = {"items": items, "scenes": scenes, "20 classes": scenes_and_grounds}


@dataclass(frozen=True)
class Subject:
    """A model and its data.

    Attributes:
        model: a name of :func:`skimba.list_models`.
        data: a key of DATA, or ``"clips"``.
        recipe: how it was trained for the study; None: its weights are in the package.
    """

    model: str
    data: str
    recipe: Recipe | None = None


SUBJECTS = {
    "vim_micro": Subject("vim_micro", "items"),
    "plain_mamba_micro": Subject("plain_mamba_micro", "items"),
    "vim_micro_patch4_56": Subject("vim_micro_patch4_56", "scenes"),
    "plain_mamba_micro_patch4_56": Subject("plain_mamba_micro_patch4_56", "scenes"),
    "mambar_micro_patch4_56": Subject("mambar_micro_patch4_56", "scenes"),
    "videomamba_micro": Subject("videomamba_micro", "clips"),
    "vim_micro_patch4_56, 20 classes": Subject(
        "vim_micro_patch4_56",
        "20 classes",
        Recipe(
            "vim_micro_patch4_56",
            pretrained=True,
            sizes={"num_classes": 20},
            epochs=1,
            learning_rate=1e-3,
            dtype="bf16",
        ),
    ),
}


def weights(name: str) -> Path:
    """The file of a subject that was trained for the study."""
    return WEIGHTS / f"{name.replace(', ', '_').replace(' ', '_')}.safetensors"


@cache
def images(name: str, split: str) -> LabelledImages:
    """A subject's pictures; clips have none."""
    return DATA[SUBJECTS[name].data](split)


@cache
def dense(name: str) -> TokenModel:
    subject = SUBJECTS[name]
    if subject.recipe is None:
        return create_model(subject.model, pretrained=True).eval()
    return create_model(subject.model, checkpoint=weights(name), **(subject.recipe.sizes or {})).eval()


def test_batches(name: str) -> Iterable[tuple[Tensor, Tensor]]:
    """The test pictures or clips as the model takes them, and their classes, in batches."""
    return _clips(name, "test", CLIPS) if SUBJECTS[name].data == "clips" else images(name, "test").batches(BATCH)


def train_batches(name: str, count: int) -> Iterable[Tensor]:
    """So many training pictures, drawn once for all methods, or clips, the first, in batches; without their classes."""
    if SUBJECTS[name].data == "clips":
        return (clips for clips, _ in _clips(name, "train", count))
    known = images(name, "train")
    drawn = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(0))[:count]]
    return (pictures for pictures, _ in drawn.batches(BATCH))


@cache
def _clips(name: str, split: str, count: int) -> list[tuple[Tensor, Tensor]]:
    shown = SelectedClips(MovingItems(items(split), split), range(count))
    reader = task_of(dense(name)).reader(dense(name))
    return [(batch.images, batch.targets) for batch in load_batches(shown, reader, in_order(len(shown), BATCH), 0)]


def main(names: list[str]) -> None:
    """Train the subjects of those names."""
    for name in names:
        recipe, folder = SUBJECTS[name].recipe, RUNS / weights(name).stem
        if recipe is None:
            raise SystemExit(f"{name} is in the package")
        print(name, train(recipe, images(name, "train"), images(name, "test"), folder), flush=True)
        WEIGHTS.mkdir(exist_ok=True)
        shutil.copy(folder / "weights.safetensors", weights(name))


if __name__ == "__main__":
    main(sys.argv[1:])
