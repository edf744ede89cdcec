"""Dense models: detectors and segmenters on a backbone that can be pruned."""

from skimba.dense.backbones import DenseBackbone
from skimba.dense.mask_rcnn import MaskRCNN
from skimba.dense.model import DenseModel
from skimba.dense.upernet import UperNet
from skimba.dense.variants import mask_rcnn, upernet

__all__ = ["DenseBackbone", "DenseModel", "MaskRCNN", "UperNet", "mask_rcnn", "upernet"]
