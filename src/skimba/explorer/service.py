"""What the page can ask. A question is plain data and holds all that its answer depends on: the server knows no visitors."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from skimba.dense import DenseModel
from skimba.dense.model import tokens_of
from skimba.explorer import answers
from skimba.explorer.catalogue import Offer, Opened
from skimba.explorer.curves import SHARES, Curves
from skimba.explorer.found import Found, drawn, find
from skimba.explorer.line import line
from skimba.explorer.pictures import LARGEST_UPLOAD, Pictures, as_png, seen
from skimba.explorer.reading import memory, reading
from skimba.explorer.recent import Recent
from skimba.explorer.sides import Side, code, methods_shown
from skimba.explorer.worker import Worker
from skimba.models import TokenModel
from skimba.pruning import METHODS
from skimba.runtime.version import VERSION
from skimba.tokens import ALIGNMENTS

T = TypeVar("T")
MOST_SIDES = 3
THUMBNAIL = 96  # pixels
Question = Mapping[str, Any]


class Explorer:
    """All models, pictures and measurements of one server. Whatever it computes runs on its worker's thread.

    Args:
        offers: the models, by name; the first is shown at first.
        worker: what computes.
    """

    def __init__(self, offers: Mapping[str, Offer], worker: Worker | None = None) -> None:
        self.offers = dict(offers)
        self.worker = worker or Worker()
        self.pictures = Pictures()
        self.curves = Curves(self.worker)
        self._opened: dict[str, Opened] = {}
        self._models, self._images, self._answers = Recent(), Recent(), Recent()

    def close(self) -> None:
        """End what runs in the background."""
        self.curves.cancel_all()
        self.worker.close()

    def ask(self, name: str, question: Question) -> Any:
        """The answer to a question, a key of :data:`QUESTIONS`, as plain data for JSON.

        Raises:
            ValueError, TypeError: the question is not right; the message says why.
            BusyError: too much is asked at once.
        """
        return QUESTIONS[name](self, question)

    def add(self, content: bytes) -> dict[str, str]:
        """An uploaded picture; raises ValueError where it is none."""
        return {"picture": self.worker.ask(lambda: self.pictures.add(content))}

    def seen(self, question: Question) -> bytes:
        """PNG of what the model sees of the picture."""
        return self.worker.ask(lambda: seen(self.image(question), self.opened(question)))

    def thumbnail(self, question: Question) -> bytes:
        """Small PNG of a picture."""
        name = _text(question, "picture")
        return self.worker.ask(lambda: as_png(self.pictures.frames(name, self.opened(question))[0], THUMBNAIL))

    def drawn(self, question: Question) -> bytes:
        """PNG of the picture with what a side's detector or segmenter finds; the side is JSON."""
        try:
            side = Side.read(json.loads(_text(question, "side")))
        except json.JSONDecodeError as error:
            raise ValueError("the side is not JSON") from error

        def compute() -> bytes:
            row = self.found(question, side)
            return as_png(drawn(self.opened(question).dense, row, self.image(question)))

        return self.worker.ask(lambda: self.remembered("drawn", question, side, compute))

    # What follows runs on the worker's thread.

    def opened(self, question: Question) -> Opened:
        """The model of a question."""
        name = _text(question, "model")
        if name not in self.offers:
            raise ValueError(f"unknown model {name[:80]!r}; here: {', '.join(self.offers)}")
        if name not in self._opened:
            self._opened[name] = Opened(self.offers[name])
        return self._opened[name]

    def image(self, question: Question) -> Tensor:
        """What the model takes of the picture: ``(1 c height width)``, of a clip ``(1 c t height width)``."""
        opened, picture = self.opened(question), _text(question, "picture")
        key = (opened.offer.name, picture)
        return self._images.get(key, lambda: opened.tensor(self.pictures.frames(picture, opened)))

    def model(self, question: Question, side: Side) -> TokenModel | DenseModel:
        """The model of a side."""
        opened = self.opened(question)
        return self._models.get((opened.offer.name, side), lambda: side.make(opened))

    def classifier(self, question: Question, side: Side) -> TokenModel:
        """The same. Raises ValueError if it is no classifier."""
        return self.opened(question).as_classifier(lambda: self.model(question, side))

    def found(self, question: Question, side: Side) -> Found:
        """What a side's detector or segmenter finds. Raises ValueError if it is neither."""

        def compute() -> Found:
            model = self.model(question, side)
            if not isinstance(model, DenseModel):
                raise ValueError(f"{_text(question, 'model')} draws nothing: it is neither a detector nor a segmenter")
            return find(model, self.opened(question).classes, self.image(question))

        return self.remembered("found", question, side, compute)

    def cost(self, question: Question, side: Side) -> dict[str, float]:
        """GFLOPs of a side by convention."""
        model = self.model(question, side)
        return self._models.get((_text(question, "model"), side, "cost"), lambda: answers.cost(model))

    def remembered(self, name: str, question: Question, side: Side, make: Callable[[], T], *more: Hashable) -> T:
        """An answer that depends on model, picture, side and ``more`` alone."""
        key = (name, _text(question, "model"), _text(question, "picture"), side, *more)
        return self._answers.get(key, make)


def about(explorer: Explorer, question: Question) -> dict[str, Any]:
    """What there is to choose from."""
    return {
        "version": VERSION,
        "models": list(explorer.offers),
        "methods": {name: str(METHODS[name]) for name in methods_shown()},
        "alignments": list(ALIGNMENTS),
        "largestUpload": LARGEST_UPLOAD,
        "shares": SHARES,
    }


def model(explorer: Explorer, question: Question) -> dict[str, Any]:
    """What is known of one model."""

    def compute() -> dict[str, Any]:
        opened = explorer.opened(question)
        gallery, own = opened.offer.gallery, tokens_of(opened.given).reducer
        return {
            "depth": len(opened.tokens.layers),
            "size": list(opened.dense.img_size),
            "channels": opened.tokens.in_chans,
            "examples": [example.name for example in gallery.examples()],
            "measurable": gallery.labelled is not None,
            "own": None if own is None else str(own),
            "draws": isinstance(opened.dense, DenseModel),
        }

    return explorer.worker.ask(compute)


def answer(explorer: Explorer, question: Question) -> dict[str, Any]:
    """One side's answers, stages and cost, and the code that does the same."""
    side = Side.read(question.get("side"))

    def compute() -> dict[str, Any]:
        opened, made = explorer.opened(question), explorer.model(question, side)
        image = explorer.image(question)
        return {
            **answers.answer(opened, made, image, lambda: explorer.found(question, side)),
            "gflops": explorer.cost(question, side),
            "code": code(side, opened, made),
        }

    return explorer.worker.ask(lambda: explorer.remembered("answer", question, side, compute))


def times(explorer: Explorer, question: Question) -> list[float]:
    """Median milliseconds of each side, measured in turns."""
    sides = _sides(question)

    def compute() -> list[float]:
        models = {place: explorer.model(question, side) for place, side in enumerate(sides)}
        return list(answers.times(models, explorer.image(question)).values())

    return explorer.worker.ask(compute)


def patch(explorer: Explorer, question: Question) -> dict[str, Any]:
    """What a patch and the class token read in one block."""
    side, block, place = Side.read(question.get("side")), _number(question, "block"), _number(question, "patch")

    def compute() -> dict[str, Any]:
        return reading(explorer.classifier(question, side), explorer.image(question), block, place)

    return explorer.worker.ask(lambda: explorer.remembered("patch", question, side, compute, block, place))


def scan_line(explorer: Explorer, question: Question) -> dict[str, Any]:
    """The scans of one block as lines."""
    side, block = Side.read(question.get("side")), _number(question, "block")

    def compute() -> dict[str, Any]:
        dense = explorer.opened(question).classifier
        return line(explorer.classifier(question, side), dense, explorer.image(question), block)

    return explorer.worker.ask(lambda: explorer.remembered("line", question, side, compute, block))


def remembers(explorer: Explorer, question: Question) -> dict[str, Any]:
    """How long one block's scans remember, and the receptive field of a patch's token."""
    side, block, place = Side.read(question.get("side")), _number(question, "block"), _number(question, "patch")

    def compute() -> dict[str, Any]:
        dense = explorer.opened(question).classifier
        return memory(explorer.classifier(question, side), dense, explorer.image(question), block, place)

    return explorer.worker.ask(lambda: explorer.remembered("memory", question, side, compute, block, place))


def start_curve(explorer: Explorer, question: Question) -> dict[str, int]:
    """Begin to measure accuracy against the share kept, for each side that prunes."""
    sides = [side for side in _sides(question) if side.method in METHODS]
    if not sides:
        raise ValueError("choose a pruning to measure")
    count = question.get("images", 1000)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 1000:
        raise ValueError(f"accuracy is measured on 1 … 1000 images, got {str(count)[:20]}")
    opened = explorer.worker.ask(lambda: explorer.opened(question))
    labelled = opened.offer.gallery.labelled
    if labelled is None:
        raise ValueError(f"the package has no labelled pictures for {opened.offer.name}; skimba eval measures on yours")
    images = explorer.worker.ask(labelled)[:count]
    return {"curve": explorer.curves.start(opened, sides, images)}


def curve(explorer: Explorer, question: Question) -> dict[str, Any]:
    """How far a measurement is."""
    return explorer.curves.find(_number(question, "curve")).plain()


def cancel_curve(explorer: Explorer, question: Question) -> dict[str, Any]:
    """End a measurement."""
    found = explorer.curves.find(_number(question, "curve"))
    found.cancelled.set()
    return found.plain()


def _text(question: Question, key: str) -> str:
    value = question.get(key)
    if not isinstance(value, str):
        raise TypeError(f"a question names its {key}, got {str(value)[:80]}")
    return value


def _number(question: Question, key: str) -> int:
    value = question.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{key} is a whole number, got {str(value)[:80]}")
    return value


def _sides(question: Question) -> list[Side]:
    given = question.get("sides")
    if not isinstance(given, list) or not 1 <= len(given) <= MOST_SIDES:
        raise ValueError(f"a question has 1 … {MOST_SIDES} sides")
    return [Side.read(side) for side in given]


QUESTIONS: dict[str, Callable[[Explorer, Question], Any]] = {
    "about": about,
    "model": model,
    "answer": answer,
    "times": times,
    "patch": patch,
    "line": scan_line,
    "memory": remembers,
    "start-curve": start_curve,
    "curve": curve,
    "cancel-curve": cancel_curve,
}
