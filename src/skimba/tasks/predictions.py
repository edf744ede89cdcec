"""What a model says of each picture, as a table: made by one or many processes, written, read, compared."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skimba.data import UNKNOWN, Pictures
from skimba.data.loading import Batch, Rejected, in_order, load_batches
from skimba.data.transforms import evaluation_transform
from skimba.models.evaluation import predict
from skimba.runtime.files import write_atomically, write_text_atomically
from skimba.runtime.processes import gather, rank, world_size

TOP = 5


@dataclass(frozen=True)
class Prediction:
    """One picture.

    Attributes:
        index: its place in the data set.
        label: its true class, or UNKNOWN.
        classes: the likeliest classes, the likeliest first, up to TOP.
        probabilities: of those classes.
    """

    index: int
    name: str
    label: int
    classes: tuple[int, ...]
    probabilities: tuple[float, ...]

    @property
    def correct(self) -> bool:
        return self.classes[0] == self.label


def predict_pictures(
    model: nn.Module,
    pictures: Pictures,
    batch_size: int,
    workers: int = 0,
    strict: bool = False,
    on_batch: Callable[[Batch], object] = lambda batch: None,
) -> tuple[list[Prediction], list[Rejected]]:
    """Predictions for all pictures in their order, and those that could not be read; under torchrun each process does its part.

    Args:
        model: with ``pretrained_cfg``, which says how a picture is brought to it; in evaluation mode meanwhile.
        on_batch: called with each batch of this process.

    Raises:
        ValueError: an unreadable picture and ``strict``, or none that can be read.
    """
    wanted = in_order(len(pictures), batch_size, rank(), world_size())
    predictions: list[Prediction] = []
    rejected: list[Rejected] = []
    for batch in load_batches(pictures, evaluation_transform(model), wanted, workers, strict):
        predictions += classify(model, pictures, batch)
        rejected += batch.rejected
        on_batch(batch)
    everything = gather((predictions, rejected))
    predictions = sorted((one for part, _ in everything for one in part), key=lambda one: one.index)
    rejected = [one for _, part in everything for one in part]
    if not predictions:
        raise ValueError(f"none of the {len(pictures)} pictures can be read, for instance {rejected[0].reason}")
    return predictions, rejected


def classify(model: nn.Module, pictures: Pictures, batch: Batch) -> list[Prediction]:
    """Predictions for a batch of those pictures."""
    if not len(batch.indices):
        return []
    logits, labels = predict(model, [(batch.images, batch.labels)])
    probabilities, classes = logits.softmax(-1).topk(min(TOP, logits.shape[1]))
    return [
        Prediction(index, pictures.name(index), label, tuple(best), tuple(probability))
        for index, label, best, probability in zip(
            *(part.tolist() for part in (batch.indices, labels, classes, probabilities)), strict=True
        )
    ]


def top_share(predictions: Iterable[Prediction], top: int) -> float:
    """Share of the pictures whose true class is among the ``top`` likeliest, in 0 … 1."""
    hits = [one.label in one.classes[:top] for one in predictions]
    return sum(hits) / len(hits)


def confusion(predictions: Iterable[Prediction], class_count: int) -> Tensor:
    """``(class_count class_count)`` int64: how many pictures of the row's class were taken for the column's."""
    counts = torch.zeros(class_count, class_count, dtype=torch.int64)
    for one in predictions:
        counts[one.label, one.classes[0]] += 1
    return counts


def write_confusion(counts: Tensor, classes: Sequence[str], path: Path) -> None:
    """The matrix of :func:`confusion` as CSV, with the classes' names in the first line and column."""
    rows = ([name, *row] for name, row in zip(classes, counts.tolist(), strict=True))
    _write_csv(path, ["true class", *classes], rows)


def real_accuracy(predictions: Iterable[Prediction], real: dict[str, list[int]]) -> float:
    """Share of ImageNet's validation pictures whose likeliest class is one of their real labels; those without any do not count.

    Args:
        real: picture name to class numbers (Beyer et al., "Are we done with ImageNet?", arXiv 2006.07159; real.json).

    Raises:
        ValueError: none of the pictures has real labels.
    """
    hits = [one.classes[0] in real[Path(one.name).stem] for one in predictions if real.get(Path(one.name).stem)]
    if not hits:
        raise ValueError("no picture has real labels: they are for ImageNet's validation pictures, ILSVRC2012_val_…")
    return sum(hits) / len(hits)


@dataclass(frozen=True)
class Comparison:
    """How two models' predictions for the same pictures differ: names of pictures that flip."""

    pictures: int
    agreement: float
    broken: list[str]
    mended: list[str]


def compare(before: list[Prediction], after: list[Prediction]) -> Comparison:
    """Which pictures were right before and are wrong after (``broken``), and the other way round (``mended``).

    Raises:
        ValueError: predictions for other pictures, or the same with other labels.
    """
    first, second = ({one.name: one for one in part} for part in (before, after))
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())
        raise ValueError(
            f"the predictions are for different pictures: {len(odd)} are in one only, for instance {odd[0]}"
        )
    if changed := [name for name in first if first[name].label != second[name].label]:
        raise ValueError(f"{len(changed)} pictures have another label in the second file, for instance {changed[0]}")
    pairs = [(one, second[name]) for name, one in first.items()]
    return Comparison(
        len(pairs),
        sum(a.classes[0] == b.classes[0] for a, b in pairs) / len(pairs),
        [a.name for a, b in pairs if a.correct and not b.correct],
        [a.name for a, b in pairs if b.correct and not a.correct],
    )


def write_table(rows: list[Any], kind: type, path: str | Path) -> None:
    """Write dataclass or named-tuple rows as CSV, or as Parquet if the path ends so (needs ``skimba[parquet]``), atomically.

    Raises:
        ImportError: pyarrow is not installed.
    """
    path = Path(path)
    names = list(kind._fields) if hasattr(kind, "_fields") else [field.name for field in fields(kind)]
    records = [row._asdict() if hasattr(row, "_asdict") else asdict(row) for row in rows]
    if path.suffix == ".parquet":
        arrow, parquet = _pyarrow()
        table = arrow.table({name: [record[name] for record in records] for name in names})
        write_atomically(path, lambda partial: parquet.write_table(table, partial))
    else:
        _write_csv(path, names, ([_as_text(record[name]) for name in names] for record in records))


def read_predictions(path: str | Path) -> list[Prediction]:
    """What :func:`write_table` wrote of predictions.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no predictions at {path}")
    try:
        if path.suffix == ".parquet":
            records = _pyarrow()[1].read_table(path).to_pylist()
        else:
            with path.open(newline="") as file:
                records = [
                    {**row, **{name: row[name].split() for name in ("classes", "probabilities")}}
                    for row in csv.DictReader(file)
                ]
        return [
            Prediction(
                int(record["index"]),
                record["name"],
                int(record["label"]),
                tuple(map(int, record["classes"])),
                tuple(map(float, record["probabilities"])),
            )
            for record in records
        ]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not hold predictions of skimba: {error}") from error


def labelled(predictions: list[Prediction]) -> list[Prediction]:
    """Those whose true class is known."""
    return [one for one in predictions if one.label != UNKNOWN]


def _write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_text_atomically(path, text.getvalue())


def _as_text(value: Any) -> Any:
    return " ".join(map(repr, value)) if isinstance(value, tuple) else value


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow: pip install 'skimba[parquet]', or write .csv") from error
    return pyarrow, pyarrow.parquet
