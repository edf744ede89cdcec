"""Official model architectures; importing this registers their variants with timm."""

from skimba.models.base import TokenModel, with_reducer
from skimba.models.checkpoint import LoadReport, load_checkpoint, read_state_dict
from skimba.models.feature_maps import FeatureMaps
from skimba.models.local_vim import LocalVim
from skimba.models.mamba_reg import MambaReg
from skimba.models.plain_mamba import PlainMamba
from skimba.models.reducer import Reducer
from skimba.models.registry import MODELS, list_models
from skimba.models.variants import Variant
from skimba.models.video_mamba import VideoMamba, VideoMambaClips
from skimba.models.vim import VisionMamba

__all__ = [
    "MODELS",
    "FeatureMaps",
    "LoadReport",
    "LocalVim",
    "MambaReg",
    "PlainMamba",
    "Reducer",
    "TokenModel",
    "Variant",
    "VideoMamba",
    "VideoMambaClips",
    "VisionMamba",
    "list_models",
    "load_checkpoint",
    "read_state_dict",
    "with_reducer",
]
