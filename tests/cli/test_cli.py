import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image

from skimba.cli import main
from skimba.cli._models import parse_schedule
from skimba.cli.measuring import sample
from skimba.cost.flops import count_flops
from skimba.data import embedded_test_images, load_fashion_mnist
from skimba.dense import upernet
from skimba.pruning import METHODS, prune, read_settings
from skimba.quantization import is_quantized
from skimba.store import create_model
from skimba.store.publish import save_model
from tests.data.idx_files import write_fashion_mnist
from tests.data.test_clips import write_clip
from tests.data.test_data import photographs


def skimba(*arguments):
    command = [sys.executable, "-m", "skimba", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def run(monkeypatch, *arguments):
    """The same in this process, which has torch loaded."""
    monkeypatch.setattr(sys, "argv", ["skimba", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0


def test_doctor_names_backend_and_versions(monkeypatch, capsys):
    run(monkeypatch, "doctor", "--json")
    assert {"python", "torch", "backend", "torch threads"} <= json.loads(capsys.readouterr().out).keys()


def test_bench_times_every_size(monkeypatch, capsys):
    options = ["--batch", "1", "--img-size", "28,32", "--rounds", "1", "--cases", "dense;hold", "--json"]
    run(monkeypatch, "bench", "vim_micro", *options)
    found = json.loads(capsys.readouterr().out)
    assert [(t["img_size"], t["case"]) for t in found["timings"]] == [
        (s, c) for s in (28, 32) for c in ("dense", "hold")
    ]
    assert "instruction set" in found["machine"] or "no cpu backend" in found["machine"]


def test_bench_takes_a_schedule(monkeypatch, capsys):
    options = ["--batch", "1", "--rounds", "1", "--cases", "dense;hold;top", "--json", "--schedule", "flops:0.6"]
    run(monkeypatch, "bench", "vim_micro", *options)
    dense, *pruned = (t["exact_gflops"] for t in json.loads(capsys.readouterr().out)["timings"])
    assert all(0.57 < gflops / dense <= 0.6 for gflops in pruned)


def test_doctor_says_why_there_are_no_kernels(monkeypatch, capsys):
    monkeypatch.setattr("skimba.ops.native.UNAVAILABLE", "no compiler was there")
    run(monkeypatch, "doctor")
    shown = capsys.readouterr().out
    assert "reference (slow)" in shown
    assert "no compiler was there" in shown


def test_doctor_says_what_runs_on_a_gpu(monkeypatch, capsys):
    for there, unavailable, says in (
        (False, None, "no: torch finds no CUDA device"),
        (True, "the package triton is not installed", "run on the reference backend (slow): the package triton is not"),
        (True, None, "run on the triton backend: NVIDIA X"),
    ):
        monkeypatch.setattr("torch.cuda.is_available", lambda there=there: there)
        monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA X")
        monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
        monkeypatch.setattr("skimba.ops.backends.triton.UNAVAILABLE", unavailable)
        run(monkeypatch, "doctor", "--json")
        found = json.loads(capsys.readouterr().out)
        assert found["models on cuda"].startswith(says)
        assert found["triton backend"] == (f"no: {unavailable}" if unavailable else "kernels for GPUs")


def test_flops_prints_both_conventions(monkeypatch, capsys):
    run(monkeypatch, "flops", "vim_small_patch16_224", "--prune", "top")
    shown = capsys.readouterr().out
    assert "published" in shown
    assert "3.565 G" in shown
    assert "4.158 G" in shown


def test_eval_on_a_folder_of_photographs(tmp_path, monkeypatch, capsys):
    weights = tmp_path / "weights.safetensors"
    save_model(create_model("vim_tiny_patch16_224", num_classes=2, img_size=64), weights)
    (tmp_path / "images").mkdir()
    data = photographs(tmp_path / "images")
    table = tmp_path / "confusion.csv"
    options = [weights, "--data", data, "--prune", "hold", "--workers", 0, "--confusion", table, "--json"]
    run(monkeypatch, "eval", *options)
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["rejected"]) == (3, 0)
    head, cat, dog = (line.split(",") for line in table.read_text().splitlines())
    assert head == ["true class", "cat", "dog"]
    assert (cat[0], sum(map(int, cat[1:])), dog[0], sum(map(int, dog[1:]))) == ("cat", 2, "dog", 1)
    assert found["top1_of_class"].keys() == {"cat", "dog"}
    (data / "cat" / "RGB.png").write_text("no image")
    run(monkeypatch, "eval", *options)
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert (found["images"], found["rejected"]) == (2, 1)
    assert "1 unreadable, for instance" in " ".join(shown.err.split())
    monkeypatch.setattr(sys, "argv", ["skimba", "eval", *map(str, options), "--strict"])
    with pytest.raises(SystemExit):
        main()
    assert "RGB.png cannot be read as an image" in capsys.readouterr().err


@pytest.mark.parametrize("on_images", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_schedule_is_found_printed_written_and_given_again(tmp_path, monkeypatch, capsys, on_images):
    pictures, file = tmp_path / "pictures", tmp_path / "found.json"
    pictures.mkdir()
    for number, pixels in enumerate(embedded_test_images()[:20].pixels):
        Image.fromarray(pixels[0].numpy()).save(pictures / f"{number:02}.png")
    options = ["--images", pictures, "--count", "8"] if on_images else []
    run(monkeypatch, "schedule", "vim_micro", "--flops", "0.7", *options, "--out", file)
    shown = capsys.readouterr().out
    settings = read_settings(json.loads(file.read_text()))
    model = create_model("vim_micro")
    share = (
        count_flops(prune(model, **settings), convention="exact").total / count_flops(model, convention="exact").total
    )
    assert 0.68 < share <= 0.7
    assert f"{share:.3f} of the dense model's" in shown
    assert "pruned by hold" in shown
    for block, kept in settings["schedule"].items():
        assert f"{kept:.3g} of the tokens after block {block}" in shown
    run(monkeypatch, "flops", "vim_micro", "--prune", file, "--json")
    assert (
        json.loads(capsys.readouterr().out)["exact"]["total"]
        == count_flops(prune(model, **settings), convention="exact").total
    )


def test_a_schedule_of_a_segmenter_is_of_its_backbone(tmp_path, monkeypatch, capsys):
    file = tmp_path / "found.json"
    run(monkeypatch, "schedule", "upernet:vim_micro", "--prune", "top", "--flops", "0.7", "--out", file)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["pruned by top", "schedule", "tokens"]
    assert re.fullmatch(r"0\.\d+ G exact, 0\.(69\d|700) of the dense backbone's", lines[3])
    assert json.loads(file.read_text())["schedule"]


def test_stages_are_chosen_on_what_the_model_takes(tmp_path):
    Image.new("RGB", (100, 70)).save(tmp_path / "picture.png")
    write_clip(tmp_path / "clip.mp4", count=3)
    for model, shape in (
        (create_model("vim_micro"), (1, 1, 28, 28)),
        (create_model("videomamba_micro"), (1, *create_model("videomamba_micro").input_shape())),
        (upernet("vim_micro", 3), (1, 3, 128, 128)),
    ):
        path = tmp_path / ("clip.mp4" if model.task == "clips" else "picture.png")
        assert sample(model, path, None).shape == shape


def test_an_exported_model_is_quantised_where_asked(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr("skimba.cli.export.export", lambda model, path, **_: (written.append(model), path.touch()))
    for options in ([], ["--int8"]):
        run(monkeypatch, "export", "vim_micro", *options, "--out", tmp_path / "m.onnx")
    assert [is_quantized(model) for model in written] == [False, True]


def test_a_pruned_model_is_fine_tuned_and_evaluated(tmp_path, monkeypatch, capsys):
    data, out = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    write_fashion_mnist(data)
    settings = ["pretrained=true", "teacher=dense", "epochs=1", "batch_size=32", "dtype=bf16"]
    pruned = ["prune.method=hold", "prune.schedule.flops=0.7"]
    run(monkeypatch, "train", "vim_micro", "--out", out, "--data", data, *settings, *pruned)
    pruning = ["--prune", "hold", "--schedule", "flops:0.7"]
    capsys.readouterr()
    run(
        monkeypatch,
        "eval",
        "vim_micro",
        "--checkpoint",
        out / "weights.safetensors",
        "--data",
        data,
        *pruning,
        "--json",
    )
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 40
    assert found["top1"] > 0.5
    dense_gflops = count_flops(create_model("vim_micro"), convention="exact").total / 1e9
    assert 0.68 * dense_gflops < found["exact_gflops"] <= 0.7 * dense_gflops


def test_a_model_whose_tokens_depend_on_the_image_is_evaluated(tmp_path, monkeypatch, capsys):
    model = prune(create_model("vim_micro", pretrained=True), replace(METHODS["hold"], counts="mass"), {2: 0.8, 5: 0.8})
    save_model(model, tmp_path / "m.safetensors")
    data = write_fashion_mnist(tmp_path)
    run(monkeypatch, "eval", tmp_path / "m.safetensors", "--data", data, "--json")
    found = json.loads(capsys.readouterr().out)
    images = load_fashion_mnist(data, "test").normalised()
    assert found["images"] == 40
    assert found["exact_gflops"] == pytest.approx(count_flops(model, convention="exact", images=images).total / 1e9)


def test_a_schedule_is_parsed():
    assert parse_schedule("5:0.8,10:0.75") == {"5": 0.8, "10": 0.75}
    assert parse_schedule("5:100, 10:-20,12:1") == {"5": {"count": 100}, "10": {"remove": 20}, "12": 1.0}
    assert parse_schedule("flops:0.6") == {"flops": 0.6}
    for bad in ("5", "5:", "a:0.5", "5:0.5;6:0.5", "", "5:0.5,5:0.6", "5:-0.5", "5:--5"):
        with pytest.raises(ValueError, match="--schedule takes"):
            parse_schedule(bad)


def wrong_calls(folder):
    (folder / "foreign.pth").write_bytes(b"no weights at all")
    (folder / "images" / "cat").mkdir(parents=True)
    (folder / "images" / "cat" / "x.png").write_text("no image")
    write_fashion_mnist(folder)
    yield ["flops", "vim_huge"], "unknown model 'vim_huge'"
    yield ["bench", "vim_micro", "--batch", "1,many"], "--batch takes whole numbers separated by commas, got '1,many'"
    yield ["flops", "vim_micro", "--prune", "best"], "unknown method 'best'"
    yield ["flops", "vim_micro", "--schedule", "1:1.5"], "(0, 1]"
    yield ["eval", "vim_micro", "--checkpoint", folder / "foreign.pth"], "foreign.pth"
    yield ["eval", "vim_micro", "--data", folder / "images"], "the pictures have 1 classes, the model 10"
    yield ["eval", folder / "none.safetensors"], "no none.json beside"
    yield ["eval", folder / "none.toml"], "no recipe at"
    yield ["train", "vim_micro", "epoch=2", "--out", folder], "unknown key 'epoch'; did you mean 'epochs'?"
    yield ["train", "vim_micro", "epochs=two", "--out", folder], "epochs must be int, got 'two'"
    yield ["predict", "vim_micro", folder / "nothing", "--out", folder / "p.csv"], "nothing at"
    yield ["compare", folder / "a.csv", folder / "b.csv"], "no predictions at"
    yield ["eval", "vim_micro", "--checkpoint", folder / "none.pth"], "no checkpoint file"
    (folder / "own.json").write_text('{"schedule": {"2": 0.5}, "colour": "red"}')
    yield (
        ["flops", "vim_micro", "--prune", folder / "own.json"],
        "own.json: prune takes method, schedule, seed; got 'colour'",
    )
    (folder / "list.json").write_text("[1]")
    yield (
        ["flops", "vim_micro", "--prune", folder / "list.json"],
        "list.json: prune takes a table of method, schedule, seed, got [1]",
    )
    yield ["flops", "vim_micro", "--prune", folder / "no.json"], "No such file"
    yield ["schedule", "vim_micro", "--flops", "0.6", "--images", folder / "run"], "nothing at"
    yield ["schedule", "vim_micro", "--flops", "0.6", "--images", folder / "images"], "cannot be read"
    yield ["schedule", "vim_micro", "--flops", "0.6", "--out", folder / "s.toml"], "must end in .json"
    yield ["schedule", "vim_micro", "--flops", "0.01"], "comes down to"
    yield ["schedule", "vim_micro"], "give a target: --flops, --speedup or --milliseconds"
    yield ["eval", "vim_micro", "--device", "gpu"], "unknown device 'gpu'; known: cpu, cuda, cuda:1"
    yield ["bench", "vim_micro", "--device", "gpu"], "unknown device 'gpu'; known: cpu, cuda, cuda:1"
    yield (
        ["schedule", "vim_micro", "--flops", "0.6", "--batch-size", "2"],
        "beside flops a schedule takes stages; got 'batch_size'",
    )
    yield (
        ["flops", "vim_micro", "--schedule", "flops:2"],
        "Flops takes a share of the dense model's FLOPs in (0, 1), got 2",
    )
    yield ["schedule", "vim_micro", "--flops", "0.7", "--speedup", "2"], "one target, got flops and speedup"
    yield ["train", "vim_micro", "--out", folder, "--data", folder, "teacher=dense"], "pretrained=True"
    yield ["train", "vim_micro", "--out", folder, "--data", folder, "dtype=fp8"], "got 'fp8'"
    yield ["train", "vim_micro", "--out", folder, "--data", folder / "nowhere"], "no folder of images at"
    yield ["train", "vim_micro", "--out", folder, "--data", folder, "learning_rate=0"], "learning_rate"


def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys):
    for arguments, says in wrong_calls(tmp_path):
        monkeypatch.setattr(sys, "argv", ["skimba", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        shown = capsys.readouterr()
        assert left.value.code == 2
        assert says in shown.err
        assert shown.err.count("\n") == 1
        assert shown.out == ""


def test_bad_input_leaves_the_process_with_code_2():
    result = skimba("flops", "vim_huge")
    assert result.returncode == 2
    assert result.stderr.startswith("skimba: unknown model 'vim_huge'")
    assert result.stderr.count("\n") == 1
