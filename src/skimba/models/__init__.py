"""Official model architectures; importing this registers their variants with timm."""

from skimba.models._checkpoint import LoadReport, load_checkpoint, read_state_dict
from skimba.models._factory import create_model, list_models
from skimba.models._token_model import Reducer, TokenModel, with_reducer
from skimba.models.plain_mamba import PlainMamba
from skimba.models.vim import VisionMamba

__all__ = [
    "LoadReport",
    "PlainMamba",
    "Reducer",
    "TokenModel",
    "VisionMamba",
    "create_model",
    "list_models",
    "load_checkpoint",
    "read_state_dict",
    "with_reducer",
]
