"""A tree of image files, one folder for each class, as ImageNet is laid out."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
from torch import Tensor
from torch.utils.data import Dataset

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
CROP_SHARE = 0.875  # of the resized image's side; what the official models are evaluated with


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Images ``(3 size size)``, resized (bicubic), cropped and normalised as the official models expect, with their class.

    Classes are the subfolders in alphabetical order (ImageNet's own numbering, if all 1,000 are there).

    Args:
        root: the folder of class folders.
        image_size: side of the square image that a model is given.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no class folders, or no image in one of them.
    """

    def __init__(self, root: str | Path, image_size: int) -> None:
        root = Path(root)
        if not root.is_dir():
            raise FileNotFoundError(f"no folder of images at {root}")
        folders = sorted(path for path in root.iterdir() if path.is_dir())
        if not folders:
            raise ValueError(f"{root} holds no class folders")
        self.classes = tuple(folder.name for folder in folders)
        self.files: list[tuple[Path, int]] = []
        for label, folder in enumerate(folders):
            images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
            if not images:
                raise ValueError(f"class folder {folder} holds no image ({', '.join(sorted(EXTENSIONS))})")
            self.files += [(path, label) for path in images]
        self.transform = create_transform(
            image_size,
            interpolation="bicubic",
            mean=IMAGENET_DEFAULT_MEAN,
            std=IMAGENET_DEFAULT_STD,
            crop_pct=CROP_SHARE,
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, which: int) -> tuple[Tensor, int]:
        path, label = self.files[which]
        return self.transform(open_image(path)), label


def open_image(path: str | Path) -> Image.Image:
    """An image file as RGB.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not an image, or is cut off.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
