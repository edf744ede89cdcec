"""Fine-tune a pruned model on your own folder of pictures.

    python examples/fine_tune.py FOLDER runs/mine

FOLDER holds ``train/CLASS/*.jpg`` and ``val/CLASS/*.jpg``. The model starts from its official weights with a new head, is
pruned while it is trained, and is written to ``runs/mine/weights.safetensors``. Repeat the command to resume.
``skimba eval runs/mine/weights.safetensors --data FOLDER`` then evaluates it, pruned as it was trained.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from skimba.data import open_pictures
from skimba.training import Progress, Recipe, train


def fine_tune(folder: Path, out: Path, model: str = "vim_tiny_patch16_224", **settings: Any) -> dict[str, Any]:
    """Figures on the validation pictures. ``settings`` are fields of :class:`skimba.training.Recipe`."""
    train_set, test_set = (open_pictures(folder, split) for split in ("train", "test"))
    recipe = Recipe(
        model,
        sizes={"num_classes": len(train_set.classes)},
        pretrained=True,
        prune={"method": "hold"},
        augmentation="imagenet",
        **{"epochs": 5, "batch_size": 32, "learning_rate": 1e-4, **settings},
    )
    return train(recipe, train_set, test_set, out, on_step=report)


def report(progress: Progress) -> None:
    print(f"step {progress.step} of {progress.steps}: loss {progress.loss:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fine-tune a pruned model on a folder of pictures.")
    parser.add_argument("folder", type=Path, help="holds train/CLASS/*.jpg and val/CLASS/*.jpg")
    parser.add_argument("out", type=Path, help="where checkpoints, logs and weights go")
    parser.add_argument("--model", default="vim_tiny_patch16_224")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    found = fine_tune(arguments.folder, arguments.out, arguments.model, epochs=arguments.epochs)
    print(f"top-1 {found['top1']:.1%} of the validation pictures; weights in {arguments.out}")
