"""Images to train and evaluate on."""

from skimba.data.fashion_mnist import CLASSES, DEBIAN_FOLDER, MEAN, STD, embedded_test_images, load_fashion_mnist
from skimba.data.idx import read_idx
from skimba.data.image_folder import ImageFolder, open_image
from skimba.data.labelled import LabelledImages
from skimba.data.scenes import FashionScenes, Scene

__all__ = [
    "CLASSES",
    "DEBIAN_FOLDER",
    "MEAN",
    "STD",
    "FashionScenes",
    "ImageFolder",
    "LabelledImages",
    "Scene",
    "embedded_test_images",
    "load_fashion_mnist",
    "open_image",
    "read_idx",
]
