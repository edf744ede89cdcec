"""Every example runs, in small."""

import io
import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from PIL import Image

import skimba
from benchmarks import serving
from examples import fine_tune, own_score, serve
from skimba.data import embedded_test_images
from skimba.data.transforms import evaluation_transform


class Running:
    """The example's server in a thread, on a free port."""

    def __init__(self, served, **options):
        self.server = serve.make_server(serve.make_app(served, **options), 0)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/"

    def stop(self):
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def served():
    return serve.pruned_model("vim_micro", "hold")


@pytest.fixture(scope="module")
def server(served):
    """Its address."""
    running = Running(served)
    yield running.address
    running.stop()


def post(address, body):
    with urllib.request.urlopen(urllib.request.Request(address, body), timeout=30) as answer:
        return json.load(answer)


def png(number):
    body = io.BytesIO()
    Image.fromarray(embedded_test_images().pixels[number, 0].numpy()).save(body, "PNG")
    return body.getvalue()


def test_the_server_answers_with_the_model_s_classes(server):
    labels = embedded_test_images().labels
    found = [post(server, png(number))["classes"] for number in range(10)]
    assert [len(classes) for classes in found] == [5] * 10
    assert all(classes[0]["probability"] >= classes[1]["probability"] for classes in found)
    right = sum(classes[0]["class"] == int(labels[number]) for number, classes in enumerate(found))
    assert right >= 8


def refused(address, body, status):
    with pytest.raises(urllib.error.HTTPError, match=str(status)) as caught:
        post(address, body)
    answer = json.load(caught.value)
    caught.value.close()
    return answer["detail"]


def test_the_server_survives_what_is_not_a_picture(server):
    for body in (b"", b"no picture", png(0)[:200]):
        assert "not a picture that can be read" in refused(server, body, 400)
    assert len(post(server, png(0))["classes"]) == 5


def test_the_server_refuses_a_body_that_is_too_large(server, monkeypatch):
    monkeypatch.setattr(serve, "LARGEST_BODY", 100)
    assert refused(server, png(0), 413) == "at most 100 bytes"
    parts = iter([png(0)[:90], png(0)[90:]])  # without a length, known only by counting
    assert refused(server, parts, 413) == "at most 100 bytes"


def test_the_server_answers_429_while_as_many_wait_as_may(served):
    going, go_on = threading.Event(), threading.Event()

    def slow(pictures):
        going.set()
        assert go_on.wait(30)
        return served.run(pictures)

    running = Running(replace(served, run=slow), waiting=2)
    with ThreadPoolExecutor(2) as clients:
        answers = [clients.submit(post, running.address, png(i)) for i in range(2)]
        going.wait(30)
        while waiting(running) < 2:
            time.sleep(0.01)
        assert refused(running.address, png(2), 429) == "2 requests wait already"
        running.server.should_exit = True  # those that wait are answered all the same
        go_on.set()
        assert [len(answer.result()["classes"]) for answer in answers] == [5, 5]
    running.stop()


def waiting(running):
    with urllib.request.urlopen(running.address + "health", timeout=30) as answer:
        return json.load(answer)["waiting"]


def test_a_fault_of_the_model_is_its_askers_alone(served, caplog):
    def fails_on_black(pictures):
        if pictures.min() == pictures.max():
            raise RuntimeError("black")
        return served.run(pictures)

    running = Running(replace(served, run=fails_on_black))
    black = io.BytesIO()
    Image.new("L", (28, 28)).save(black, "PNG")
    with pytest.raises(urllib.error.HTTPError, match="500") as caught:
        post(running.address, black.getvalue())
    caught.value.close()
    assert len(post(running.address, png(0))["classes"]) == 5
    running.stop()


def test_pictures_that_arrive_together_go_through_the_model_together(served):
    sizes = []

    def counted(pictures):
        sizes.append(len(pictures))
        time.sleep(0.05)
        return served.run(pictures)

    running = Running(replace(served, run=counted), largest_batch=4)
    with ThreadPoolExecutor(12) as clients:
        found = list(clients.map(lambda i: post(running.address, png(i)), range(12)))
    running.stop()
    assert sum(sizes) == 12
    assert 1 < max(sizes) <= 4
    assert [answer["classes"][0]["class"] for answer in found] == served_alone(served, range(12))


def served_alone(served, numbers):
    with torch.inference_mode():
        pictures = [served.prepare(Image.open(io.BytesIO(png(i)))) for i in numbers]
        return [int(served.run(picture[None])[0].argmax()) for picture in pictures]


@pytest.mark.parametrize("suffix", ["onnx", pytest.param("pt2", marks=pytest.mark.slow)])
def test_an_exported_file_is_served_as_the_model(suffix, tmp_path):
    for needed in ("onnxscript", "onnxruntime"):
        pytest.importorskip(needed)
    model = skimba.prune(skimba.create_model("vim_micro", depth=2).eval(), "top", {1: 0.5})
    served = serve.Served(model, evaluation_transform(model), "L")
    exported = serve.exported_file(str(skimba.export(model, tmp_path / f"m.{suffix}")))
    assert exported.mode == "L"
    with Image.open(io.BytesIO(png(0))) as picture:
        pixels = exported.prepare(picture)
        assert torch.equal(pixels, served.prepare(picture))
    with torch.inference_mode():
        torch.testing.assert_close(exported.run(pixels[None]), served.run(pixels[None]), rtol=0, atol=1e-4)


def test_a_file_for_a_fixed_batch_is_not_served(monkeypatch):
    monkeypatch.setattr(serve, "onnx_file", lambda path: (None, '{"images": {"batch": 4}}'))
    with pytest.raises(ValueError, match="4 pictures at a time"):
        serve.exported_file("m.onnx")


@pytest.mark.parametrize(("seconds", "clients"), [(1, 8), pytest.param(60, 16, marks=pytest.mark.slow)])
@pytest.mark.timeout(300)
def test_under_load_no_request_is_lost_and_no_answer_wrong(seconds, clients):
    found = serving.measure("vim_micro", "hold", seconds, clients, waiting=64)
    assert (found.lost, found.wrong, found.refused) == (0, 0, 0)
    assert found.answered >= clients
    assert 0 < found.percentile_ms(50) <= found.percentile_ms(99)


def test_a_user_defined_score_prunes_better_than_chance():
    found = own_score.main(embedded_test_images()[:200])
    assert len(found) == 2
    assert all(0.4 < share <= 1 for share in found.values())


def test_a_folder_of_pictures_is_learned(tmp_path):
    for split, count in (("train", 8), ("val", 4)):
        for name, colour in {"red": (200, 30, 30), "green": (30, 200, 30)}.items():
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                shade = tuple(min(part + 5 * number, 255) for part in colour)
                Image.new("RGB", (64, 64), shade).save(folder / f"{number}.png")
    out = tmp_path / "run"
    settings = {"epochs": 3, "batch_size": 8, "learning_rate": 3e-3, "color_jitter": 0.0, "auto_augment": ""}
    found = fine_tune.fine_tune(tmp_path / "pictures", out, "vim_micro_patch4_56", **settings)
    assert found["top1"] > 0.5
    model = skimba.create_model(checkpoint=out / "weights.safetensors").eval()
    assert model.reducer is not None
    assert model(torch.zeros(1, 3, 56, 56)).shape == (1, 2)
