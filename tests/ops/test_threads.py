import threading

import pytest
import torch

import skimba
from skimba.ops import native

needs_native = pytest.mark.skipif(native.UNAVAILABLE is not None, reason="no native kernels")


@needs_native
def test_two_python_threads_infer_at_once(monkeypatch):
    monkeypatch.undo()
    model = skimba.prune(skimba.create_model("vim_micro", depth=4).eval(), "top", {2: 0.5})
    images = torch.randn(2, 8, 1, 28, 28)
    with torch.inference_mode():
        expected = [model(x) for x in images]
    found = {}

    def infer(number):
        with torch.inference_mode():
            found[number] = [model(images[number]) for _ in range(5)]

    threads = [threading.Thread(target=infer, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(y, expected[number]) for number in (0, 1) for y in found[number])
