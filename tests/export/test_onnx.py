"""ONNX files: equal to the model in stock onnxruntime, at every batch size; what stands in them; what is refused."""

import json
import sys

import pytest
import torch

import skimba
from skimba.pruning import Drop, Method
from tests.conftest import TINY
from tests.export.conftest import KERNELS, METHODS, tiny

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
runtime = pytest.importorskip("onnxruntime")

MOST_APART = 1  # of 1,000 images: none was found
SHIPPED = ("vim_micro", "plain_mamba_micro")


def session_of(path, options=None):
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def logits_of(session, images):
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


@pytest.mark.parametrize("kernels", KERNELS)
@torch.no_grad()
def test_the_file_equals_the_model_at_every_batch_size(small, onnx_path, kernels):
    session = session_of(onnx_path, KERNELS[kernels]())
    for batch in (1, 2, 5):
        images = torch.randn(batch, 3, 24, 32)
        torch.testing.assert_close(logits_of(session, images), small(images), rtol=1e-5, atol=1e-6)


def test_the_operators_are_nodes_and_functions_of_the_same_name(onnx_path):
    model = onnx.load(onnx_path)
    onnx.checker.check_model(model, full_check=True)
    nodes = {node.op_type for node in model.graph.node if node.domain == "skimba"}
    assert nodes == {function.name for function in model.functions if function.domain == "skimba"}
    assert {"AddRmsNorm_residual", "CausalConv1d_source_reverse", "SelectiveScan_z_missing"} <= nodes


def test_tokens_are_gone_from_the_sequences(small, onnx_path):
    """The scans of the second block run over the class token and half of the others, of which there are 48."""
    model = onnx.shape_inference.infer_shapes(onnx.load(onnx_path))
    known = {value.name: value.type.tensor_type.shape.dim for value in model.graph.value_info}
    scans = [node for node in model.graph.node if node.op_type.startswith("SelectiveScan")]
    lengths = [known[node.output[0]][1].dim_value for node in scans]
    assert lengths == [49, 49, 25, 25]


@torch.no_grad()
def test_nothing_is_added_without_a_lock(onnx_path, tmp_path):
    """onnxruntime runs ScatterND from several threads, which lose a summand where two add to one place."""
    model = tiny("vim", "hold", depth=2)
    path = skimba.export(model, tmp_path / "m.onnx")
    images = torch.randn(3, 3, 24, 32)
    torch.testing.assert_close(logits_of(session_of(path), images), model(images), rtol=1e-5, atol=1e-6)
    for file in (onnx.load(onnx_path), onnx.load(path)):
        nodes = [*file.graph.node, *(node for function in file.functions for node in function.node)]
        adding = {node.op_type for node in nodes for a in node.attribute if a.name == "reduction" and a.s == b"add"}
        assert adding <= {"ScatterElements"}


def test_the_metadata_says_what_a_caller_needs(small, onnx_path):
    content = json.loads(session_of(onnx_path).get_modelmeta().custom_metadata_map["skimba"])
    assert content["images"] == {"shape": [3, 24, 32], "batch": None, "dtype": "float32"}
    assert content["prune"] == small.reducer.to_dict()
    assert (content["model"], content["num_classes"]) == (None, 5)


@torch.no_grad()
def test_a_quantised_model_stays_in_8_bits(small, tmp_path):
    model, images = skimba.quantize(small), torch.randn(3, 3, 24, 32)
    path = skimba.export(model, tmp_path / "m.onnx")
    torch.testing.assert_close(logits_of(session_of(path), images), model(images), rtol=1e-4, atol=1e-4)
    file = onnx.load(path)
    assert "Int8Linear" in {node.op_type for node in file.graph.node}
    kinds = [tensor.data_type for tensor in file.graph.initializer]
    assert kinds.count(onnx.TensorProto.INT8) == 2 * 4


@pytest.mark.slow
@pytest.mark.parametrize("way", METHODS)
@pytest.mark.parametrize("family", TINY)
@torch.no_grad()
def test_every_family_and_method_is_exported(tmp_path, family, way):
    model = tiny(family, way)
    path = skimba.export(model, tmp_path / "m.onnx", batch=3 if way == "top" else None)
    images = torch.randn(3, *model.input_shape())
    for kernels in KERNELS.values():
        got = logits_of(session_of(path, kernels()), images)
        torch.testing.assert_close(got, model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["dense", "top", "hold"])
@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.timeout(600)
@torch.no_grad()
def test_a_shipped_model_gives_the_same_answers_on_1000_images(tmp_path, name, way):
    model = skimba.create_model(name, pretrained=True).eval()
    model = model if METHODS[way] is None else skimba.prune(model, METHODS[way])
    path = skimba.export(model, tmp_path / "m.onnx")
    for kernels in KERNELS.values():
        session = session_of(path, kernels())
        apart = 0
        for batch, _ in skimba.data.embedded_test_images().batches(50):
            expected, got = model(batch), logits_of(session, batch)
            assert torch.equal(got.argmax(1), expected.argmax(1))
            apart += int(((got - expected).abs().amax(1) > 1e-4).sum())
        # Where two scores are nearer than float32 rounds, another token may stay; a dense model has no such choice.
        assert apart <= (0 if way == "dense" else MOST_APART)


def reads_values(tokens, count, seed):
    return tokens.x.sum(-1) * float(tokens.x.mean())


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"path": "m.pth"}, ValueError, r"must end in .*\.onnx.*, got '\.pth'"),
        ({"opset": 17}, ValueError, "opset must be 18 to 20, got 17"),
        ({"opset": "18"}, TypeError, "opset is a whole number, got '18'"),
        ({"batch": 0}, ValueError, "batch must be at least 1, or None for any, got 0"),
        ({"batch": True}, TypeError, "batch is a whole number, got True"),
        ({"path": "m.onnx/m.onnx"}, NotADirectoryError, "is not a folder"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(small, tmp_path, options, error, says):
    (tmp_path / "m.onnx").write_text("good")
    with pytest.raises(error, match=says):
        skimba.export(small, tmp_path / options.pop("path", "m.onnx"), **options)
    assert (tmp_path / "m.onnx").read_text() == "good"


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda m: torch.nn.Linear(2, 2), TypeError, "export takes a classifier of skimba's, got Linear"),
        (lambda m: m.bfloat16(), ValueError, "takes a model of torch.float32, this one is of torch.bfloat16"),
        (lambda m: m.to("meta"), ValueError, r"on the cpu, this one is on meta: model\.cpu\(\) first"),
        (lambda m: skimba.prune(m, Method(Drop(), counts="mass"), {1: 0.5}), ValueError, "prune with counts=None"),
        (
            lambda m: skimba.prune(m, Method(Drop(reads_values)), {1: 0.5}),
            ValueError,
            r"cannot be traced; it has user-defined functions \(score\), which may not read values",
        ),
    ],
    ids=["kind", "dtype", "device", "counts", "function"],
)
def test_what_cannot_be_exported_is_refused_in_one_line(tmp_path, change, error, says):
    (tmp_path / "m.onnx").write_text("good")
    with pytest.raises(error, match=says) as refused:
        skimba.export(change(TINY["vim"](depth=2)), tmp_path / "m.onnx")
    assert "\n" not in str(refused.value)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("m.onnx", "good")]


def test_a_failing_write_leaves_what_was_there(small, tmp_path, monkeypatch):
    def half(path, content):
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("skimba.export.onnx_file.to_onnx", lambda *_: b"content")
    monkeypatch.setattr("skimba.export.writing.trace", lambda model, batch: None)
    monkeypatch.setattr("pathlib.Path.write_bytes", half)
    (tmp_path / "m.onnx").write_text("good")
    with pytest.raises(OSError, match=r"No space left on device.*what was there before is intact"):
        skimba.export(small, tmp_path / "m.onnx")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("m.onnx", "good")]


def test_a_missing_library_is_named(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimba.export.onnx_file", None)
    monkeypatch.setattr("skimba.export.writing.trace", lambda model, batch: None)
    with pytest.raises(ImportError, match=r"pip install 'skimba\[export\]'"):
        skimba.export(small, tmp_path / "m.onnx")
