"""Serve a pruned model over HTTP. Pictures that arrive together go through the model together.

    pip install 'skimba[examples]'
    python examples/serve.py vim_small_patch16_224 --port 8000     # pruned here; --int8 for products in 8 bits
    python examples/serve.py model.onnx                             # what skimba.export wrote, in onnxruntime; or model.pt2
    curl --data-binary @photo.jpg http://127.0.0.1:8000/

The answer is JSON: the five most likely classes with their probabilities. A picture that cannot be read is answered with 400,
one that is too large with 413, and with 429 what comes while as many requests wait as the queue holds. Ctrl-C or SIGTERM stops
the server once those that wait are answered.

FastAPI on uvicorn: what is awaited here, a queue and a thread for the model, fits an asyncio server, and these two are the ones
most people know. Litestar would do as well; it installs more. Put a proxy in front of it before it meets the open network.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from PIL import Image
from starlette.requests import ClientDisconnect
from timm.data import create_transform
from torch import Tensor

import skimba
from skimba.data.decoding import decode
from skimba.data.transforms import evaluation_transform
from skimba.ops import native

HOST = "127.0.0.1"
LARGEST_BODY = 20_000_000  # bytes
PATIENCE_S = 30  # with a client that sends slowly, and to stop while requests wait
Run = Callable[[Tensor], Tensor]
DECODERS = 2  # threads: a picture may take a quarter of a GiB while it is decoded


@dataclass(frozen=True)
class Served:
    """A model and how pictures are prepared for it.

    Attributes:
        run: ``(b c height width)`` -> logits ``(b classes)``.
        prepare: a picture -> ``(c height width)``.
        mode: of the picture, ``"L"`` or ``"RGB"``.
        classes: their names; empty if unknown.
    """

    run: Run
    prepare: Callable[[Image.Image], Tensor]
    mode: str
    classes: tuple[str, ...] = ()


def pruned_model(name: str, method: str = "hold", int8: bool = False) -> Served:
    """A model of :func:`skimba.list_models` with its published weights."""
    model = skimba.prune(skimba.create_model(name, pretrained=True).eval(), method)
    model = skimba.quantize(model) if int8 else model
    classes = tuple(model.pretrained_cfg.get("label_names") or ())
    return Served(model, evaluation_transform(model), "L" if model.in_chans == 1 else "RGB", classes)


def exported_file(path: str) -> Served:
    """What ``skimba.export`` wrote, a ``.onnx`` or a ``.pt2``; everything that it needs is in the file.

    Raises:
        ValueError: it was exported for a fixed batch.
    """
    run, described = (onnx_file if path.endswith(".onnx") else package_file)(path)
    about = json.loads(described)
    images = about["images"]
    if images["batch"] is not None:
        raise ValueError(f"{path} takes {images['batch']} pictures at a time; export it without a fixed batch")
    settings = {key: images[key] for key in ("mean", "std", "crop_pct", "interpolation") if key in images}
    prepare = create_transform(tuple(images["shape"]), **settings)
    dtype = getattr(torch, images["dtype"])
    mode = "L" if images["shape"][0] == 1 else "RGB"
    return Served(lambda batch: run(batch.to(dtype)), prepare, mode, tuple(about["classes"]))


def onnx_file(path: str) -> tuple[Run, str]:
    """How a ``.onnx`` is run, and what it says of itself."""
    import onnxruntime  # only here: the other kinds of model do without

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(batch: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": batch.numpy()})[0])

    return run, session.get_modelmeta().custom_metadata_map["skimba"]


def package_file(path: str) -> tuple[Run, str]:
    """The same of a ``.pt2``."""
    package = torch._inductor.aoti_load_package(path)
    return package, package.get_metadata()["skimba"]


class Batcher:
    """Gathers what arrives into batches, one after the other, for one thread that runs the model.

    Args:
        run: the model.
        largest_batch: pictures in a batch.
        wait_s: how long the first picture of a batch waits for others. A batch that is running gathers the next one anyway.
    """

    def __init__(self, run: Run, largest_batch: int, wait_s: float) -> None:
        self.run, self.largest_batch, self.wait_s = run, largest_batch, wait_s
        self.queue: asyncio.Queue[tuple[Tensor, asyncio.Future[Tensor]]] = asyncio.Queue()
        self.thread = ThreadPoolExecutor(1)

    async def __call__(self, pixels: Tensor) -> Tensor:
        """The logits of one picture."""
        answer: asyncio.Future[Tensor] = asyncio.get_running_loop().create_future()
        await self.queue.put((pixels, answer))
        return await answer

    async def work(self) -> None:
        """Until it is cancelled."""
        while True:
            batch = await self._gather()
            pictures = torch.stack([pixels for pixels, _ in batch])
            try:
                logits = await asyncio.get_running_loop().run_in_executor(self.thread, self._infer, pictures)
            except (
                Exception
            ) as error:  # whatever a model raises is the answer of those who asked, and no end of the server
                for _, answer in batch:
                    if not answer.done():  # done: the client has gone
                        answer.set_exception(error)
                continue
            for (_, answer), row in zip(batch, logits, strict=True):
                if not answer.done():
                    answer.set_result(row)

    async def _gather(self) -> list[tuple[Tensor, asyncio.Future[Tensor]]]:
        batch = [await self.queue.get()]
        if self.queue.qsize() < self.largest_batch - 1:
            await asyncio.sleep(self.wait_s)
        while len(batch) < self.largest_batch and not self.queue.empty():
            batch.append(self.queue.get_nowait())
        return batch

    def _infer(self, pictures: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.run(pictures)


def make_app(served: Served, largest_batch: int = 8, wait_s: float = 0.002, waiting: int = 64) -> FastAPI:
    """The application.

    Args:
        waiting: requests that may wait, from their first byte to their answer; those beyond are answered with 429 at once.
    """
    batcher, decoders = Batcher(served.run, largest_batch, wait_s), ThreadPoolExecutor(DECODERS)
    inside = 0

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker = asyncio.create_task(batcher.work())
        yield
        worker.cancel()
        for pool in (batcher.thread, decoders):
            pool.shutdown()

    app = FastAPI(lifespan=lifespan, openapi_url=None)

    @app.get("/health")
    async def health() -> dict[str, int]:
        return {"waiting": inside, "most": waiting}

    @app.post("/")
    async def classify(request: Request) -> dict[str, object]:
        nonlocal inside
        if inside >= waiting:
            raise HTTPException(429, f"{waiting} requests wait already", {"Retry-After": "1"})
        inside += 1
        try:
            body = await asyncio.wait_for(_read(request), PATIENCE_S)
            pixels = await asyncio.get_running_loop().run_in_executor(decoders, _prepare, served, body)
            return {"classes": _best(await batcher(pixels), served.classes)}
        except asyncio.TimeoutError:
            raise HTTPException(408, f"the body did not arrive within {PATIENCE_S} s") from None
        except ClientDisconnect:
            raise HTTPException(400, "the client has gone") from None
        finally:
            inside -= 1

    return app


async def _read(request: Request) -> bytes:
    """The body, or 413 as soon as it is known to be too large."""
    body = bytearray()
    length = request.headers.get("content-length", "0")
    if int(length) <= LARGEST_BODY:  # the server refuses what is no number
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_BODY:
                break
    if max(len(body), int(length)) > LARGEST_BODY:
        raise HTTPException(413, f"at most {LARGEST_BODY} bytes", {"Connection": "close"})
    return bytes(body)


def _prepare(served: Served, body: bytes) -> Tensor:
    try:
        return served.prepare(decode(io.BytesIO(body), "the body", served.mode))
    except ValueError as error:
        raise HTTPException(400, f"not a picture that can be read: {error}") from error


def _best(logits: Tensor, names: tuple[str, ...], count: int = 5) -> list[dict[str, object]]:
    best = logits.softmax(0).topk(min(count, len(logits)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        {"class": number, "probability": share} | ({"name": names[number]} if names else {}) for number, share in pairs
    ]


def make_server(app: FastAPI, port: int) -> uvicorn.Server:
    """A server on this machine only; port 0 takes any free one."""
    return uvicorn.Server(
        uvicorn.Config(app, HOST, port, log_level="warning", timeout_graceful_shutdown=PATIENCE_S, access_log=False)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a pruned model over HTTP.")
    parser.add_argument("model", help="a name of skimba.list_models(), or a .onnx or .pt2 that skimba export wrote")
    parser.add_argument("--method", default="hold", help="of a model by name")
    parser.add_argument("--int8", action="store_true", help="of a model by name: products in 8-bit integers")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--largest-batch", type=int, default=8)
    parser.add_argument("--waiting", type=int, default=64, help="requests that may wait; 429 beyond")
    given = parser.parse_args()
    native.keep_freed_memory()
    exported = given.model.endswith((".onnx", ".pt2"))
    served = exported_file(given.model) if exported else pruned_model(given.model, given.method, given.int8)
    app = make_app(served, given.largest_batch, waiting=given.waiting)
    print(f"listening on http://{HOST}:{given.port}/", flush=True)
    make_server(app, given.port).run()


if __name__ == "__main__":
    main()
