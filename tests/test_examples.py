"""Every example runs, in small."""

import io
import json
import threading
import urllib.error
import urllib.request

import pytest
from PIL import Image

from examples import serve
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
