"""Images to train and evaluate on."""

from skimba.data.decoding import open_image
from skimba.data.fashion_mnist import CLASSES, DEBIAN_FOLDER, MEAN, STD, embedded_test_images, load_fashion_mnist
from skimba.data.fingerprints import changes, fingerprint
from skimba.data.idx import read_idx
from skimba.data.image_files import (
    ImageFiles,
    find_images,
    imagenet_classes,
    read_image_folder,
    read_labelled_list,
    read_shards,
)
from skimba.data.labelled import LabelledImages
from skimba.data.opening import open_pictures
from skimba.data.pictures import CHANNELS, UNKNOWN, Pictures, Selected
from skimba.data.scenes import FashionScenes, Scene

__all__ = [
    "CHANNELS",
    "CLASSES",
    "DEBIAN_FOLDER",
    "MEAN",
    "STD",
    "UNKNOWN",
    "FashionScenes",
    "ImageFiles",
    "LabelledImages",
    "Pictures",
    "Scene",
    "Selected",
    "changes",
    "embedded_test_images",
    "find_images",
    "fingerprint",
    "imagenet_classes",
    "load_fashion_mnist",
    "open_image",
    "open_pictures",
    "read_idx",
    "read_image_folder",
    "read_labelled_list",
    "read_shards",
]
