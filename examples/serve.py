"""Serve a pruned model over HTTP, with nothing but the standard library.

    python examples/serve.py vim_small_patch16_224 --port 8000
    curl --data-binary @photo.jpg http://127.0.0.1:8000/

The answer is JSON: the five most likely classes with their probabilities. A picture that cannot be read is answered with
400, one that is too large with 413. Requests wait for each other, because one forward pass already uses every core.
"""

from __future__ import annotations

import argparse
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from PIL import Image

import skimba
from skimba.data.transforms import evaluation_transform

LARGEST_BODY = 20_000_000  # bytes
FORMATS = ("JPEG", "PNG", "WEBP")


class Classifier:
    """A pruned model and the preprocessing that its weights expect."""

    def __init__(self, name: str, method: str) -> None:
        self.model = skimba.prune(skimba.create_model(name, pretrained=True).eval(), method)
        self.transform = evaluation_transform(self.model)
        self.mode = "L" if self.model.in_chans == 1 else "RGB"
        self.turn = threading.Lock()

    def classify(self, picture: bytes) -> list[dict[str, float]]:
        """The five most likely classes. Raises OSError or ValueError for what is not a picture."""
        with Image.open(io.BytesIO(picture), formats=FORMATS) as image:
            pixels = self.transform(image.convert(self.mode))
        with self.turn, torch.inference_mode():
            probabilities = self.model(pixels[None])[0].softmax(0)
        best = probabilities.topk(min(5, len(probabilities)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [{"class": number, "probability": probability} for number, probability in pairs]


def make_server(classifier: Classifier, port: int) -> ThreadingHTTPServer:
    """A server on this machine only; port 0 takes any free one."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal():
                return self.answer(411, {"error": "the request needs a Content-Length"})
            if int(length) > LARGEST_BODY:
                return self.answer(413, {"error": f"at most {LARGEST_BODY} bytes, got {length}"})
            try:
                found = classifier.classify(self.rfile.read(int(length)))
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                return self.answer(400, {"error": f"not a picture that can be read: {error}"})
            self.answer(200, {"classes": found})

        def answer(self, status: int, content: dict[str, object]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a pruned model over HTTP.")
    parser.add_argument("model", help="a name of skimba.list_models()")
    parser.add_argument("--method", default="hold")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    server = make_server(Classifier(arguments.model, arguments.method), arguments.port)
    print(f"listening on http://127.0.0.1:{server.server_port}/")
    server.serve_forever()


if __name__ == "__main__":
    main()
