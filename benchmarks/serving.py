"""The serving example under load: its answers compared with the model's own, and how long they take.

    python -m benchmarks.serving [vim_micro] [--method hold] [--seconds 60] [--clients 16] [--waiting 64]

The server runs in a process of its own, as it would be deployed; each client sends its next picture when it has the answer to
the last.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

import skimba
from skimba.data import embedded_test_images
from skimba.data.transforms import evaluation_transform

EXAMPLE = Path(__file__).parents[1] / "examples" / "serve.py"
PICTURES = 40
PATIENCE_S = 120  # for the server to start, and for one answer
CLOSE = 1e-3  # of a probability: batches round differently


@dataclass
class Load:
    """What came back.

    Attributes:
        times_s: of each answer that was a class.
        wrong: of those, how many were not the model's own.
        refused: answers 429.
        lost: requests without an answer, or with any other.
    """

    seconds: float = 0.0
    times_s: list[float] = field(default_factory=list)
    wrong: int = 0
    refused: int = 0
    lost: int = 0

    @property
    def answered(self) -> int:
        return len(self.times_s)

    def percentile_ms(self, percent: int) -> float:
        return 1e3 * statistics.quantiles(self.times_s, n=100, method="inclusive")[percent - 1]

    def __str__(self) -> str:
        return (
            f"{self.answered} answers, {self.answered / self.seconds:.1f} a second; p50 {self.percentile_ms(50):.1f} ms, "
            f"p99 {self.percentile_ms(99):.1f} ms; {self.refused} refused (429), {self.lost} lost, {self.wrong} wrong"
        )


def measure(name: str, method: str, seconds: float, clients: int, waiting: int) -> Load:
    """Start the example with a model, and send it pictures."""
    bodies = pictures()
    expected = answers(name, method, bodies)
    found, lock = Load(), threading.Lock()
    with running(name, method, waiting) as port:
        began = time.perf_counter()
        threads = [
            threading.Thread(target=_client, args=(number, port, began + seconds, bodies, expected, found, lock))
            for number in range(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found.seconds = time.perf_counter() - began
    return found


@contextmanager
def running(name: str, method: str, waiting: int) -> Iterator[int]:
    """The example in a process of its own; its port. Stopped as an operating system stops a service."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    options = ["--method", method, "--port", str(port), "--waiting", str(waiting)]
    server = subprocess.Popen([sys.executable, str(EXAMPLE), name, *options], stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + PATIENCE_S
        while not _answers(port):
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the example does not start")
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait(PATIENCE_S)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def pictures() -> list[bytes]:
    """Shipped pictures as PNG files."""
    bodies = []
    for pixels in embedded_test_images().pixels[:PICTURES, 0].numpy():
        body = io.BytesIO()
        Image.fromarray(pixels).save(body, "PNG")
        bodies.append(body.getvalue())
    return bodies


def answers(name: str, method: str, bodies: list[bytes]) -> list[tuple[int, float]]:
    """Class and probability that the model itself gives each picture alone."""
    model = skimba.prune(skimba.create_model(name, pretrained=True).eval(), method)
    prepare, mode = evaluation_transform(model), "L" if model.in_chans == 1 else "RGB"
    found = []
    with torch.inference_mode():
        for body in bodies:
            with Image.open(io.BytesIO(body)) as picture:
                share, number = model(prepare(picture.convert(mode))[None])[0].softmax(0).max(0)
            found.append((int(number), float(share)))
    return found


def _client(
    number: int,
    port: int,
    until: float,
    bodies: list[bytes],
    expected: list[tuple[int, float]],
    found: Load,
    lock: threading.Lock,
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    while (began := time.perf_counter()) < until:
        number = (number + 7) % len(bodies)
        try:
            connection.request("POST", "/", bodies[number])
            answer = connection.getresponse()
            status, content = answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            status, content = 0, {}
            connection.close()
        passed = time.perf_counter() - began
        with lock:
            if status == 200:
                found.times_s.append(passed)
                best = content["classes"][0]
                label, share = expected[number]
                found.wrong += best["class"] != label or abs(best["probability"] - share) > CLOSE
            elif status == 429:
                found.refused += 1
            else:
                found.lost += 1
        if status == 429:
            time.sleep(0.05)
    connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Load the serving example.")
    parser.add_argument("model", nargs="?", default="vim_micro")
    parser.add_argument("--method", default="hold")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--waiting", type=int, default=64)
    given = parser.parse_args()
    print(measure(given.model, given.method, given.seconds, given.clients, given.waiting))


if __name__ == "__main__":
    main()
