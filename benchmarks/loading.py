"""Does loading hold a model up? Training and evaluation from JPEG files against the model's own steps on pictures in memory.

    python -m benchmarks.loading [--model vim_small_patch16_224] [--workers 0] [--rounds 4]

The pictures are crops of scikit-image's photographs, 500 × 375 pixels as ImageNet's are on average, in class folders. Both kinds
of step take turns. On a CPU decoding takes its part of the same cores, so the ratio tells what it costs besides waiting.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from skimba.cost.timing import speedup, take_turns
from skimba.data import open_pictures
from skimba.data.loading import Batch, ClassReader, Wanted, load_batches
from skimba.data.scenes import photographs
from skimba.data.transforms import Transform, evaluation_transform, imagenet_transform
from skimba.ops import native
from skimba.training import Recipe
from skimba.training.fitting import Fitting
from skimba.training.plan import make_plan

PICTURE = (500, 375)
CLASSES, OF_CLASS = 4, 16
BATCHES = 4  # in a round


def write_pictures(root: Path) -> None:
    draw = np.random.default_rng(0)
    for label in range(CLASSES):
        (root / "train" / f"c{label}").mkdir(parents=True)
        for number in range(OF_CLASS):
            photograph = photographs()[draw.integers(len(photographs()))]
            box = (0, 0, min(PICTURE[0], photograph.width), min(PICTURE[1], photograph.height))
            photograph.resize(PICTURE, Image.Resampling.BICUBIC, box).save(
                root / "train" / f"c{label}" / f"{number}.jpg", quality=90
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vim_small_patch16_224")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    native.keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder))
        pictures = open_pictures(folder, "train")
        recipe = Recipe(
            arguments.model, sizes={"num_classes": CLASSES}, batch_size=arguments.batch_size, augmentation="imagenet"
        )
        model = recipe.dense_model()
        fitting = Fitting(recipe, make_plan(recipe, pictures), model, recipe.task(model).criterion(model, None))

        def endless(transform: Transform, seeded: bool) -> Iterator[Batch]:
            while True:
                draw = torch.randperm(len(pictures)).tolist()
                wanted = [Wanted(place, place if seeded else None) for place in draw]
                size = arguments.batch_size
                yield from load_batches(
                    pictures,
                    ClassReader(transform),
                    [wanted[start : start + size] for start in range(0, len(wanted) - size + 1, size)] * 50,
                    arguments.workers,
                )

        def evaluate(batch: Batch) -> None:
            with torch.inference_mode():
                model.eval()(batch.images)

        train_from = endless(imagenet_transform(model, recipe.auto_augment, recipe.color_jitter, recipe.erasing), True)
        tasks = {
            "training": (train_from, lambda batch: fitting.step([batch])),
            "evaluation": (endless(evaluation_transform(model), False), evaluate),
        }
        for name, (batches, step) in tasks.items():
            kept = next(batches)
            step(kept)
            runs = {
                "kept": lambda step=step, kept=kept: [step(kept) for _ in range(BATCHES)],
                "loaded": lambda step=step, batches=batches: [step(batch) for batch in islice(batches, BATCHES)],
            }
            times = take_turns(runs, arguments.rounds)
            print(
                f"{arguments.model} {name}: {speedup(times['kept'], times['loaded']):.2f} of the rate without loading"
            )


if __name__ == "__main__":
    main()
