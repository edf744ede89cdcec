"""Packages of AOTInductor: loaded by torch alone, from Python and from C++, and equal to the model."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import skimba
from skimba.export import libraries
from skimba.export.package import OPERATORS, declaration
from tests.export.conftest import tiny

ROOT = Path(__file__).parents[2]
LOAD = """
import sys, torch
sys.modules["skimba"] = None
model = torch._inductor.aoti_load_package(sys.argv[1])
images = torch.load(sys.argv[2])
torch.save([model(batch).float() for batch in images], sys.argv[3])
print(model.get_metadata()["skimba"])
"""


def library_is_there():
    try:
        return libraries.find("package").is_file()
    except RuntimeError:
        return False


needs_library = pytest.mark.skipif(not library_is_there(), reason="built without a C++ compiler")


def test_the_functions_that_a_package_calls_are_those_of_the_library():
    """Names, and the types of all arguments: a C function that is called with others is not noticed by any linker."""
    source = " ".join((ROOT / "csrc" / "package_operators.cpp").read_text().split())
    for operator in OPERATORS:
        name, arguments = re.fullmatch(r"AOTITorchError (\w+)\((.*)\)", declaration(operator)).groups()
        written = re.search(rf"AOTITorchError {name}\((.*?)\) {{", source)[1]
        assert [argument.rsplit(" ", 1)[0] for argument in written.split(", ")] == arguments.split(", ")


def test_a_library_that_was_not_built_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(libraries, "HERE", tmp_path)
    with pytest.raises(RuntimeError, match=r"skimba_ort was not built; install skimba with a C\+\+17 compiler"):
        skimba.export.ort_library()
    (tmp_path / "m.pt2").write_text("good")
    monkeypatch.setattr("skimba.export.writing.trace", lambda model, batch: None)
    with pytest.raises(RuntimeError, match="skimba_package was not built"):
        skimba.export(tiny("vim", "dense", depth=1), tmp_path / "m.pt2")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("m.pt2", "good")]


def test_an_opset_has_no_effect_on_a_package(tmp_path):
    with pytest.raises(ValueError, match=r"opset is ONNX's alone and has no effect on \.pt2"):
        skimba.export(tiny("vim", "dense", depth=1), tmp_path / "m.pt2", opset=18)


def run_alone(package, batches, folder):
    """The results of a process that has torch but no skimba, and the package's metadata."""
    torch.save(batches, folder / "images.pt")
    command = [sys.executable, "-c", LOAD, package, folder / "images.pt", folder / "got.pt"]
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=folder)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return torch.load(folder / "got.pt"), json.loads(ran.stdout)


@needs_library
@pytest.mark.slow  # compiling takes a minute
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("family", "way", "dtype", "batch"),
    [
        ("vim", "hold", torch.float32, None),
        ("vim", "top", torch.bfloat16, None),
        ("plain_mamba", "hold", torch.float32, 2),
        ("plain_mamba", "dense", torch.bfloat16, None),
        ("local_vim", "top", torch.float32, None),
    ],
)
@torch.no_grad()
def test_a_package_equals_the_model_without_skimba(tmp_path, family, way, dtype, batch):
    model = tiny(family, way, depth=2).to(dtype)
    package = skimba.export(model, tmp_path / "m.pt2", batch=batch)
    batches = [torch.randn(n, 3, 24, 32).to(dtype) for n in ((1, 2, 5) if batch is None else (batch,))]
    results, metadata = run_alone(package, batches, tmp_path)
    assert metadata["images"]["dtype"] == str(dtype).removeprefix("torch.")
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    for images, got in zip(batches, results, strict=True):
        torch.testing.assert_close(got, model(images).float(), rtol=tolerance, atol=tolerance)


@needs_library
@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_quantised_package_equals_the_model_without_skimba(tmp_path, dtype):
    model = skimba.quantize(tiny("vim", "top", depth=2).to(dtype))
    package = skimba.export(model, tmp_path / "m.pt2")
    batches = [torch.randn(n, 3, 24, 32).to(dtype) for n in (1, 5)]
    results, _ = run_alone(package, batches, tmp_path)
    tolerance = 1e-3 if dtype == torch.float32 else 0.05
    for images, got in zip(batches, results, strict=True):
        torch.testing.assert_close(got, model(images).float(), rtol=tolerance, atol=tolerance)


@needs_library
@pytest.mark.slow
@pytest.mark.timeout(1800)
@torch.no_grad()
def test_a_program_in_cpp_classifies_as_the_model_does(tmp_path):
    model = skimba.prune(skimba.create_model("vim_micro", pretrained=True)).eval()
    package = skimba.export(model, tmp_path / "m.pt2")
    data = skimba.data.embedded_test_images()
    data.picture(0).save(tmp_path / "picture.pgm")
    build = ["cmake", "-S", ROOT / "examples" / "cpp", "-B", tmp_path / "build", "-DCMAKE_BUILD_TYPE=Release"]
    for command in (
        [*build, f"-DTORCH={torch.__path__[0]}"],
        ["cmake", "--build", tmp_path / "build"],
    ):
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
    program = str(tmp_path / "build" / "classify")
    ran = subprocess.run([program, package, tmp_path / "picture.pgm"], capture_output=True, text=True)
    expected = model(data[:1].normalised())
    assert ran.stdout.splitlines()[0] == f"class {int(expected.argmax())}", ran.stderr
    got = torch.tensor([float(x) for x in ran.stdout.splitlines()[1].split()])
    torch.testing.assert_close(got, expected[0], rtol=1e-3, atol=1e-3)
    refused = subprocess.run([program, package, tmp_path / "m.pt2"], capture_output=True, text=True)
    assert refused.returncode == 1
    assert "is not a binary PGM or PPM" in refused.stderr
