"""Every example runs, in small."""

import io
import json
import threading
import urllib.error
import urllib.request

import pytest
import torch
from PIL import Image

import skimba
from examples import fine_tune, own_score, serve
from skimba.data import embedded_test_images


@pytest.fixture
def server():
    """The example's server on a free port; requests go to the address given."""
    running = serve.make_server(serve.Classifier("vim_micro", "hold"), 0)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/"
    running.shutdown()
    thread.join()
    running.server_close()


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


def test_the_server_survives_what_is_not_a_picture(server):
    for body in (b"", b"no picture", png(0)[:200]):
        with pytest.raises(urllib.error.HTTPError, match="400") as caught:
            post(server, body)
        caught.value.close()
    assert len(post(server, png(0))["classes"]) == 5


def test_the_server_refuses_a_body_that_is_too_large(server, monkeypatch):
    monkeypatch.setattr(serve, "LARGEST_BODY", 100)
    with pytest.raises(urllib.error.HTTPError, match="413") as caught:
        post(server, png(0))
    caught.value.close()


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
