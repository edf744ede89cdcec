"""Models as files that run without skimba: ``skimba.export(model, "model.onnx")``.

The folder is called itself, too: ``skimba.export`` is this module, and a call of it is :func:`export`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from skimba.export.libraries import ort_library
from skimba.export.writing import export

__all__ = ["export", "ort_library"]


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Path:
        return export(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
