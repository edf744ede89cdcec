"""Tables of predictions: what comes back, what is refused, how two are compared."""

from dataclasses import replace

import pytest

from skimba.data import embedded_test_images
from skimba.data.loading import Rejected
from skimba.store import create_model
from skimba.tasks import CLASSIFICATION, ClassPrediction, predict_all
from skimba.tasks.comparison import compare
from skimba.tasks.tables import read_rows, write_rows

NAMES = ["a\rb.png", "a\nb.png", "\udcff.png", 'a"b,c.png', "a\\b.png", "ü \u2028.png", "", " "]


def made(index, name="p", label=1, classes=(1, 2)):
    return ClassPrediction(index, name, label, classes, (0.75, 0.25), "one", ('T-shirt/"top', "Ankle boot, a"))


@pytest.mark.parametrize("suffix", ["csv", "CSV", "parquet", "PARQUET"])
def test_any_name_comes_back(tmp_path, suffix):
    rows = [made(index, name) for index, name in enumerate(NAMES)]
    rows[0] = replace(rows[0], class_names=("\udcfe", "b\r"), label_name="x\n")
    write_rows(rows, ClassPrediction, tmp_path / f"a.{suffix}")
    assert read_rows(tmp_path / f"a.{suffix}", ClassPrediction) == rows
    rejected = [Rejected(name, f"{name} cannot be read") for name in NAMES if name]
    write_rows(rejected, Rejected, tmp_path / f"b.{suffix}")
    assert read_rows(tmp_path / f"b.{suffix}", Rejected) == rejected


def test_tables_of_0_1_are_read(tmp_path):
    (tmp_path / "a.csv").write_text("index,name,label,classes,probabilities\n0,a.png,1,1 2,0.75 0.25\n")
    assert read_rows(tmp_path / "a.csv", ClassPrediction) == [ClassPrediction(0, "a.png", 1, (1, 2), (0.75, 0.25))]


HEAD = "index,name,label,classes,probabilities\n"


@pytest.mark.parametrize(
    "text",
    [
        "name,label\na,1\n",
        HEAD + "0,a,1,,\n",  # no classes
        HEAD + "0,a,1,1 2,0.5\n",
        HEAD + '0,"a,1,1,0.5\n',  # a quote that is not closed
        HEAD + "0,a\n",
        HEAD + "x,a,1,1,0.5\n",
        HEAD + "0,a\0,1,1,x\n",
        "index,name,label,classes,probabilities,class_names\n0,a,1,1,0.5,[1\n",
        "index,name,label,classes,probabilities,class_names\n0,a,1,1,0.5,[1]\n",
        HEAD + "0," + "a" * 200_000 + ",1,1,0.5\n",
    ],
)
def test_other_tables_are_refused_with_their_name(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=r"a\.csv does not hold predictions of skimba"):
        read_rows(tmp_path / "a.csv", ClassPrediction)


@pytest.mark.parametrize("content", [b"\xff\xfe\0", b"PAR1", b""])
def test_other_bytes_are_refused_or_empty(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(ValueError, match="does not hold predictions"):
        read_rows(tmp_path / "a.parquet", ClassPrediction)
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"tables are \.csv or \.parquet, got a\.txt"):
        read_rows(tmp_path / "a.txt", ClassPrediction)


@pytest.mark.parametrize("text", ["", HEAD])
def test_a_table_without_rows_is_nothing_to_compare(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    rows = read_rows(tmp_path / "a.csv", ClassPrediction)
    with pytest.raises(ValueError, match="no predictions to compare"):
        compare(rows, rows)


def test_pictures_of_one_name_are_all_compared():
    before = [made(0, "a"), made(1, "a"), made(2, "b", classes=(2, 1)), made(3, "a")]
    after = [made(0, "a"), made(1, "a", classes=(2, 1)), made(2, "b"), made(3, "a")]
    found = compare(before, after)
    assert (found.pictures, found.broken, found.mended) == (4, ["a"], ["b"])
    with pytest.raises(ValueError, match="1 are in one only, for instance a"):
        compare(before, after[:3])


def test_predictions_name_the_classes():
    images = embedded_test_images()[:4]
    model = create_model("vim_micro", depth=1)
    one = predict_all(CLASSIFICATION, model, images, 4)[0][0]
    assert one.label_name == images.classes[one.label]
    assert one.class_names == tuple(images.classes[number] for number in one.classes)
    model.pretrained_cfg["label_names"] = tuple("abcdefghij")
    one = predict_all(CLASSIFICATION, model, images, 4)[0][0]
    assert one.class_names == tuple("abcdefghij"[number] for number in one.classes)
    with pytest.raises(
        ValueError, match="the pictures' classes are not the model's: 'T-shirt/top' stands where it has 'a'"
    ):
        CLASSIFICATION.check(model, images)
