"""Packages of AOTInductor: the model compiled for this kind of CPU, with our kernels in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.export import ExportedProgram

from skimba.export import libraries
from skimba.ops.backends.cpu import int8_product, int8_saturates
from skimba.ops.backends.reference import LEAST_ROW
from skimba.ops.library import ADD_RMS_NORM, CAUSAL_CONV1D, DEPTHWISE_CONV2D, INT8_LINEAR, SELECTIVE_SCAN, Operator
from skimba.runtime.messages import plain

C_TYPES = {"Tensor": "AtenTensorHandle", "Tensor?": "AtenTensorHandle*", "bool": "int32_t", "float": "double"}
OPERATORS = (SELECTIVE_SCAN, CAUSAL_CONV1D, DEPTHWISE_CONV2D, ADD_RMS_NORM)
RESULTS = {ADD_RMS_NORM.name: 2}  # all others have one


def to_package(program: ExportedProgram, metadata: dict[str, str]) -> bytes:
    """Compile the program; the content of the package.

    The calls of skimba's operators become calls of the C functions of ``csrc/package_operators.cpp``, which are linked into the
    package: what loads it needs torch alone.

    Raises:
        RuntimeError: the operators' library was not built, or there is no compiler now.
    """
    library = libraries.find("package")
    # The digest enters the compiled source, by which torch's cache tells programs apart.
    digest = sha256(library.read_bytes()).hexdigest()
    settings = {
        "aot_inductor.custom_ops_to_c_shims": {o.forward: [f"{declaration(o)} /* {digest} */"] for o in OPERATORS},
        "aot_inductor.custom_op_libs": [libraries.LIBRARY["package"]],
        "aot_inductor.metadata": metadata,
    }
    if any(node.target is INT8_LINEAR.forward for node in program.graph.nodes):
        int8_saturates()  # remembered: while the program is rewritten, tensors have no values
        program = program.run_decompositions({INT8_LINEAR.forward: int8_linear})
    try:
        with TemporaryDirectory() as folder, _searched_by_the_linker(library.parent), torch.no_grad():
            path = f"{folder}/model.pt2"
            torch._inductor.aoti_compile_and_package(program, package_path=path, inductor_configs=settings)
            return Path(path).read_bytes()
    except Exception as error:  # torch's own kinds
        raise RuntimeError(f"the program cannot be compiled: {type(error).__name__}: {plain(error, 500)}") from error


def int8_linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """:func:`skimba.ops.int8_linear` in torch's own operators, whose loops its compiler joins."""
    largest = x.float().abs().amax(-1, keepdim=True)
    values = (x * torch.where(largest > LEAST_ROW, 127 / largest, 0.0)).round().char()
    products = int8_product(values.flatten(0, 1), weight).unflatten(0, x.shape[:2])
    y = products.float() * (scale * (largest / 127))
    return (y if bias is None else y + bias).to(x.dtype)


def declaration(operator: Operator) -> str:
    """Of the C function that a call of the operator becomes, as torch's compiler names and calls it."""
    given = [C_TYPES[argument.rsplit(" ", 1)[0]] for argument in operator.signature.schema.split(", ")]
    results = ["AtenTensorHandle*"] * RESULTS.get(operator.name, 1)
    return f"AOTITorchError aoti_torch_cpu_{operator.name}({', '.join([*given, *results])})"


@contextmanager
def _searched_by_the_linker(folder: Path) -> Iterator[None]:
    """torch has no setting for it; compilers read this variable."""
    before = os.environ.get("LIBRARY_PATH")
    os.environ["LIBRARY_PATH"] = str(folder) if before is None else f"{folder}{os.pathsep}{before}"
    try:
        yield
    finally:
        if before is None:
            del os.environ["LIBRARY_PATH"]
        else:
            os.environ["LIBRARY_PATH"] = before
