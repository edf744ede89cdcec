"""Images to train and evaluate on."""

from skimba.data.clips import ClipFiles, find_clips, read_clip_folder, read_clip_list
from skimba.data.coco import Fault, InstanceFiles, describe_faults, read_coco
from skimba.data.decoding import open_image
from skimba.data.dense_opening import open_maps, open_objects
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
from skimba.data.instances import Instance, Instances, Runs, as_coco
from skimba.data.label_maps import ADE20K_CLASSES, IGNORED, LabelMap, MappedFiles, read_ade20k, read_label_maps
from skimba.data.labelled import LabelledImages
from skimba.data.moving import MovingItems
from skimba.data.opening import open_clips, open_pictures
from skimba.data.pictures import CHANNELS, UNKNOWN, Clips, Pictures, Selected, select
from skimba.data.scene_targets import SceneMaps, SceneObjects
from skimba.data.scenes import FashionScenes, Scene

__all__ = [
    "ADE20K_CLASSES",
    "CHANNELS",
    "CLASSES",
    "DEBIAN_FOLDER",
    "IGNORED",
    "MEAN",
    "STD",
    "UNKNOWN",
    "ClipFiles",
    "Clips",
    "FashionScenes",
    "Fault",
    "ImageFiles",
    "Instance",
    "InstanceFiles",
    "Instances",
    "LabelMap",
    "LabelledImages",
    "MappedFiles",
    "MovingItems",
    "Pictures",
    "Runs",
    "Scene",
    "SceneMaps",
    "SceneObjects",
    "Selected",
    "as_coco",
    "changes",
    "describe_faults",
    "embedded_test_images",
    "find_clips",
    "find_images",
    "fingerprint",
    "imagenet_classes",
    "load_fashion_mnist",
    "open_clips",
    "open_image",
    "open_maps",
    "open_objects",
    "open_pictures",
    "read_ade20k",
    "read_clip_folder",
    "read_clip_list",
    "read_coco",
    "read_idx",
    "read_image_folder",
    "read_label_maps",
    "read_labelled_list",
    "read_shards",
    "select",
]
