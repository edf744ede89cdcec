"""What the page is told equals what the library says."""

import io
import threading
import time
from itertools import pairwise

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import skimba
from skimba.cli._commands import app
from skimba.data import embedded_test_images
from skimba.data.transforms import evaluation_transform
from skimba.explorer.worker import BusyError, Worker
from skimba.insight import area, hidden_attention, pace, receptive_field, scan_times, trace
from skimba.insight.drawing import kept_mask
from skimba.models.evaluation import accuracy, predict
from skimba.tasks import ClassPrediction
from skimba.tasks.tables import read_rows
from tests.explorer.conftest import upload

SIDES = {
    "dense": {"method": "dense"},
    "hold": {"method": "hold", "share": 0.7},
    "top": {"method": "top", "share": 0.6},
    "hold_decay": {"method": "hold", "align": "decay", "share": 0.7},
}
MODELS = {
    "dense": lambda model: model,
    "hold": lambda model: skimba.prune(model, "hold", {1: 0.7, 3: 0.7}),
    "top": lambda model: skimba.prune(model, "top", {2: 0.6, 4: 0.6, 6: 0.6}),
}


@pytest.fixture(scope="module")
def dense():
    return skimba.create_model("vim_micro", pretrained=True).eval()


@pytest.fixture(scope="module")
def photo():
    """A PNG that is not in the package."""
    pixels = (torch.rand(40, 60, 3, generator=torch.Generator().manual_seed(3)) * 255).byte()
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).resize((300, 200)).save(buffer, "PNG")
    return buffer.getvalue()


def as_tensor(content, model):
    with Image.open(io.BytesIO(content)) as image:
        return evaluation_transform(model)(image.convert("L"))[None]


@pytest.mark.parametrize("side", MODELS)
def test_probabilities_tokens_and_flops_are_the_librarys(server, ask, dense, photo, side):
    picture = upload(server, photo)[1]["picture"]
    status, found = ask("answer", model="vim_micro", picture=picture, side=SIDES[side])
    assert status == 200, found
    model, image = MODELS[side](dense), as_tensor(photo, dense)
    with torch.inference_mode():
        wanted = model(image)[0].softmax(0).topk(5)
        stages = trace(model, image)
    assert [one["number"] for one in found["classes"]] == wanted.indices.tolist()
    got = torch.tensor([one["probability"] for one in found["classes"]])
    torch.testing.assert_close(got, wanted.values, atol=1e-6, rtol=1e-5)
    assert found["gflops"]["exact"] == skimba.count_flops(model, convention="exact").total / 1e9
    assert [stage["tokens"] for stage in found["stages"]] == [tokens.layout.image_count for tokens in stages]
    for stage, tokens in zip(found["stages"], stages, strict=True):
        own = [home == patch for patch, home in enumerate(stage["home"])]
        assert own == kept_mask(tokens)[0].flatten().tolist()


def test_a_merged_patch_names_its_owner_and_a_dropped_one_none(ask):
    _, held = ask("answer", model="vim_micro", picture="example:0", side=SIDES["hold"])
    _, dropped = ask("answer", model="vim_micro", picture="example:0", side=SIDES["top"])
    home = held["stages"][-1]["home"]
    assert min(home) >= 0
    assert all(home[owner] == owner for owner in home)
    assert dropped["stages"][-1]["home"].count(-1) == 196 - dropped["stages"][-1]["tokens"]


@pytest.mark.parametrize("name", ["vim_micro", "plain_mamba_micro"])
def test_what_a_patch_reads_is_its_hidden_attention(ask, name):
    side, patch, block = SIDES["hold"], 90, 5
    status, found = ask("patch", model=name, picture="example:3", side=side, block=block, patch=patch)
    assert status == 200, found
    model = skimba.create_model(name, pretrained=True).eval()
    images = embedded_test_images()
    image = images[torch.tensor([int((images.labels == 3).nonzero()[0])])].normalised()
    pruned = skimba.prune(model, "hold", {1: 0.7, 3: 0.7})
    position = patch + (patch >= 98 and model.class_token_count)
    weight = hidden_attention(pruned, image, block, positions=[position], include=("convolution", "gate"))
    wanted = (weight.maps[0, :, 0].flatten(1) / weight.weight.sum()).tolist()
    assert found["walks"] == list(weight.walks)
    torch.testing.assert_close(torch.tensor(found["reads"]), torch.tensor(wanted), atol=1e-5, rtol=1e-3)
    assert (found["reach"] is None) == (model.class_token_count == 0)


@pytest.mark.parametrize("name", ["vim_micro", "plain_mamba_micro"])
def test_the_line_of_an_unpruned_block_is_the_dense_one_under_every_alignment(ask, name):
    status, found = ask("line", model=name, picture="example:3", side=SIDES["hold"], block=1)
    assert status == 200, found
    assert found["rule"] == "hold"
    for scan in found["scans"]:
        assert sorted(visit for visit in scan["visits"] if visit >= 0) == list(range(196))
        assert scan["at"] == list(range(len(scan["visits"])))
        for memory in scan["memories"].values():
            for rule in ("none", "decay", "hold"):
                assert memory[rule] == pytest.approx(memory["dense"], rel=1e-4)


def test_gaps_pass_no_time_without_alignment_and_the_owners_time_with_hold(ask):
    _, found = ask("line", model="vim_micro", picture="example:3", side=SIDES["hold"], block=5)
    for scan in found["scans"]:
        assert sum(scan["owned"]) == len(scan["visits"])
        for memory in scan["memories"].values():
            pairs = zip(memory["none"], memory["hold"], scan["owned"], strict=True)
            assert all(held == pytest.approx(alone * size, rel=1e-4) for alone, held, size in pairs)
            assert sum(memory["none"]) < sum(memory["decay"])


def test_decay_lengths_and_the_receptive_field_are_the_librarys(ask, dense):
    asked = {"model": "vim_micro", "picture": "example:3", "side": SIDES["hold"], "block": 5}
    status, found = ask("memory", **asked, patch=90)
    assert status == 200, found
    images = embedded_test_images()
    image = images[torch.tensor([int((images.labels == 3).nonzero()[0])])].normalised()
    pruned = MODELS["hold"](dense)
    lengths = scan_times(pruned, image, 5).decay_lengths.flatten()
    assert found["median"] == pytest.approx(lengths.median().item(), rel=1e-5)
    between = [((lengths > low) & (lengths <= high)).float().mean().item() for low, high in pairwise(found["edges"])]
    assert found["lengths"][1:-1] == pytest.approx(between[1:-1], abs=1e-6)
    assert sum(found["lengths"]) == pytest.approx(1)
    field = receptive_field(pruned, image, 90, 5)
    assert found["area"] == area(field)
    wanted = field.unflatten(0, (14, 2)).unflatten(2, (14, 2)).sum((1, 3)).flatten().tolist()
    assert found["field"] == pytest.approx(wanted, rel=1e-3)
    assert found["pace"] == pytest.approx(pace(scan_times(dense, image, 5), {"": scan_times(pruned, image, 5)})[""])


def test_a_dropped_patch_has_no_receptive_field(ask):
    _, answer = ask("answer", model="vim_micro", picture="example:3", side=SIDES["top"])
    gone = answer["stages"][-1]["home"].index(-1)
    _, found = ask("memory", model="vim_micro", picture="example:3", side=SIDES["top"], block=8, patch=gone)
    assert (found["field"], found["area"]) == (None, None)
    assert found["median"] > 0


def test_a_method_without_owners_cannot_be_held(ask):
    _, found = ask("line", model="vim_micro", picture="example:3", side=SIDES["top"], block=8)
    assert all(memory["hold"] is None for scan in found["scans"] for memory in scan["memories"].values())


@pytest.mark.parametrize("side", SIDES)
def test_the_python_lines_and_the_command_give_the_same(server, ask, photo, side, tmp_path, monkeypatch):
    picture = upload(server, photo)[1]["picture"]
    _, found = ask("answer", model="vim_micro", picture=picture, side=SIDES[side])
    wanted = {one["number"]: one["probability"] for one in found["classes"]}
    names: dict[str, object] = {}
    exec(found["code"]["python"], names)
    model = names.get("pruned", names["model"])
    with torch.inference_mode():
        got = model(as_tensor(photo, model))[0].softmax(0)
    assert {number: pytest.approx(got[number].item(), abs=1e-6) for number in wanted} == wanted

    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").write_bytes(photo)
    if found["code"]["file"]:
        (tmp_path / "pruning.json").write_text(found["code"]["file"])
    words = found["code"]["command"].replace("PHOTO", "photo.png").split()
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.output
    (row,) = read_rows(tmp_path / "predictions.csv", ClassPrediction)
    assert list(row.classes) == list(wanted)
    assert row.probabilities == pytest.approx(list(wanted.values()), abs=1e-4)


def test_times_are_positive_and_of_every_side(ask):
    status, found = ask("times", model="vim_micro", picture="example:0", sides=[SIDES["dense"], SIDES["hold"]])
    assert status == 200
    assert len(found) == 2
    assert min(found) > 0


def test_two_visitors_at_once_get_their_own_answers(ask):
    wanted = {
        (number, side): ask("answer", model="vim_micro", picture=f"example:{number}", side=SIDES[side])[1]["classes"]
        for number in (1, 5)
        for side in ("dense", "hold")
    }
    wrong = []

    def visit(number, side):
        for _ in range(4):
            status, found = ask("answer", model="vim_micro", picture=f"example:{number}", side=SIDES[side])
            if status != 200 or found["classes"] != wanted[number, side]:
                wrong.append(found)

    threads = [threading.Thread(target=visit, args=one) for one in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def wait_for(ask, curve):
    for _ in range(600):
        found = ask("curve", curve=curve)[1]
        if found["state"] != "running":
            return found
        time.sleep(0.05)
    raise AssertionError(found)


def test_the_curve_is_the_accuracy_on_the_embedded_images(ask, dense):
    status, started = ask("start-curve", model="vim_micro", sides=[SIDES["hold"]], images=30)
    assert status == 200, started
    found = wait_for(ask, started["curve"])
    assert found["state"] == "done"
    assert found["done"] == found["total"]
    images = embedded_test_images()[:30]
    for row in found["rows"][::5]:
        model = skimba.prune(dense, "hold", dict.fromkeys((1, 3), row["share"]))
        assert row["accuracy"] == pytest.approx(accuracy(*predict(model, images.batches(30))))
    assert [row["share"] for row in found["rows"]] == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]


def test_a_measurement_can_be_cancelled_and_few_run_at_once(ask):
    question = {"model": "vim_micro", "sides": [SIDES["hold"], SIDES["top"]], "images": 1000}
    started = [ask("start-curve", question)[1]["curve"] for _ in range(2)]
    _, refused = ask("start-curve", question)
    assert "2 measurements run already" in refused["busy"]
    assert ask("answer", model="vim_micro", picture="example:2", side=SIDES["dense"])[0] == 200  # meanwhile
    for curve in started:
        ask("cancel-curve", curve=curve)
    found = [wait_for(ask, curve) for curve in started]
    assert [one["state"] for one in found] == ["cancelled"] * 2
    assert all(one["done"] < one["total"] for one in found)


def test_a_worker_with_enough_to_do_says_that_it_is_busy():
    worker, gate = Worker(most_waiting=1), threading.Event()
    thread = threading.Thread(target=worker.ask, args=(gate.wait,))
    thread.start()
    while not worker.waiting:
        time.sleep(0.001)
    with pytest.raises(BusyError, match="1 questions wait already"):
        worker.ask(int)
    gate.set()
    thread.join()
    assert worker.ask(lambda: 7) == 7
    worker.close()


def test_a_question_that_waits_too_long_is_given_up():
    worker, gate = Worker(patience_s=0.05), threading.Event()
    with pytest.raises(BusyError, match="no answer within"):
        worker.ask(gate.wait)
    gate.set()
    with pytest.raises(ValueError, match="own"):
        worker.ask(raise_own)
    worker.close()


def raise_own():
    raise ValueError("its own error")
