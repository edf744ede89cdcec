"""The operators as libraries that stand beside this file, built with the package."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
LIBRARY = {"ort": "skimba_ort", "package": "skimba_package"}


def ort_library() -> Path:
    """The library of skimba's operators for onnxruntime, 1.16 or later.

    Sessions with ``options.register_custom_ops_library(str(skimba.export.ort_library()))`` run our kernels where others run the
    functions in the file. The library may be copied; other languages register it by its path too. Its kernels run on
    the session's threads (``intra_op_num_threads``); in onnxruntime 1.16, which lends none, each on one.

    Raises:
        RuntimeError: it was not built: there was no C++ compiler when skimba was installed.
    """
    return find("ort")


def find(purpose: str) -> Path:
    """The library for a key of :data:`LIBRARY`."""
    name = LIBRARY[purpose]
    for file in HERE.iterdir():
        if file.stem.removeprefix("lib") == name and file.is_file():
            return file
    raise RuntimeError(f"the library {name} was not built; install skimba with a C++17 compiler")
