import copy
import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from skimba.data import Instances, as_coco, describe_faults, open_objects, read_coco
from skimba.data.instances import runs_from, runs_of
from tests.data.pictures_of import photograph

coco = pytest.importorskip("pycocotools.mask")

SQUARE = [2.0, 3.0, 12.0, 3.0, 12.0, 9.0, 2.0, 9.0]


def content():
    """Two pictures of 40 by 30, one of 23 by 17; three things, one of them a crowd."""
    crowd = np.zeros((30, 40), np.uint8)
    crowd[5:9, 10:30] = 1
    packed = coco.encode(np.asfortranarray(crowd))
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 30, "width": 40},
            {"id": 5, "file_name": "b.png", "height": 17, "width": 23},
            {"id": 9, "file_name": "c.png", "height": 30, "width": 40},
        ],
        "categories": [{"id": 44, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 44, "bbox": [2, 3, 10, 6], "segmentation": [SQUARE], "area": 60.0},
            {
                "id": 2,
                "image_id": 7,
                "category_id": 3,
                "bbox": [10, 5, 20, 4],
                "segmentation": {"size": [30, 40], "counts": packed["counts"].decode()},
                "area": 80,
                "iscrowd": 1,
            },
            {
                "id": 3,
                "image_id": 5,
                "category_id": 3,
                "bbox": [0, 0, 5, 5],
                "segmentation": [SQUARE, [1, 1, 4, 1, 4, 4]],
            },
        ],
    }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    for name, size in (("a", (40, 30)), ("b", (23, 17)), ("c", (40, 30))):
        photograph(*size).save(tmp_path / "val2017" / f"{name}.png")
    return tmp_path


def read(folder, changed):
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(changed))
    return open_objects(folder, "test")


def test_pictures_come_with_what_is_in_them(folder):
    found = read(folder, content())
    assert found.classes == ("cat", "dog")  # in the order of their ids
    assert (found.category_ids, found.image_ids, found.faults) == ([3, 44], [7, 5, 9], ())
    assert [found.name(i) for i in range(3)] == ["a.png", "b.png", "c.png"]
    target = found.target(0)
    assert [(one.label, one.box, one.crowd, one.area) for one in target.things] == [
        (1, (2.0, 3.0, 12.0, 9.0), False, 60.0),
        (0, (10.0, 5.0, 30.0, 9.0), True, 80.0),
    ]
    masks = target.masks()
    assert masks.shape == (2, 30, 40)
    assert masks[0].sum() == 60
    assert masks[0, 3:9, 2:12].all()
    assert masks[1].sum() == 80
    assert masks[1, 5:9, 10:30].all()
    assert found.target(2) == Instances(30, 40, ())
    assert found.target(2).masks().shape == (0, 30, 40)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # pycocotools with NumPy 2
def test_masks_are_those_of_cocos_own_tools(folder):
    from pycocotools.coco import COCO

    found = read(folder, content())
    official = COCO(str(folder / "annotations" / "instances_val2017.json"))
    for index, key in enumerate(found.image_ids):
        theirs = [official.annToMask(one) for one in official.loadAnns(official.getAnnIds(key))]
        mine = found.target(index).masks()
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_targets_go_to_cocos_tools_and_back(folder, tmp_path):
    found = read(folder, content())
    again = as_coco(found)
    assert [one["area"] for one in again["annotations"]] == [60.0, 80.0, float(found.target(1).masks().sum())]
    again["images"] = [{**one, "file_name": found.name(one["id"])} for one in again["images"]]
    (tmp_path / "again.json").write_text(json.dumps(again))
    back = read_coco(tmp_path / "again.json", folder / "val2017")
    assert back.classes == found.classes
    for index in range(3):
        assert np.array_equal(back.target(index).masks(), found.target(index).masks())
        assert [one[:2] for one in back.target(index).things] == [one[:2] for one in found.target(index).things]


def test_changed_annotations_change_the_fingerprint_of_targets(folder):
    before = read(folder, content())
    changed = content()
    changed["annotations"][2]["segmentation"][1][0] = 1.5
    after = read(folder, changed)
    assert repr(before.target(0)) == repr(after.target(0))
    assert repr(before.target(1)) != repr(after.target(1))


def broken():
    """(a change of an annotation, what is said of it)"""
    yield {"bbox": [5, 5, 0, 4]}, "a box of no area in the picture"
    yield {"bbox": [50, 5, 10, 4]}, "a box of no area in the picture"
    yield {"bbox": [5, 5, -3, 4]}, "a box of no area in the picture"
    yield {"bbox": [5, 5, float("nan"), 4]}, "no box"
    yield {"bbox": [5, 5, 3]}, "no box"
    yield {"bbox": None}, "no box"
    yield {"category_id": 2}, "an unknown category"
    yield {"category_id": [44]}, "an unknown category"
    yield {"image_id": 8}, "an unknown image"
    yield {"image_id": {}}, "an unknown image"
    yield {"segmentation": [[1, 2, 3, 4]]}, "no polygon of three points or more in the picture"
    yield {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "no polygon of three points or more in the picture"
    yield {"segmentation": [[1, 2, 3, 4, 5, float("inf")]]}, "no polygon of three points or more in the picture"
    yield {"segmentation": [[1, 2, 3, 4, 5, 1e9]]}, "no polygon of three points or more in the picture"
    yield {"segmentation": [["1", 2, 3, 4, 5, 6]]}, "no polygon of three points or more in the picture"
    yield {"segmentation": []}, "no segmentation"
    yield {"segmentation": "x"}, "no segmentation"
    yield {"segmentation": {"size": [40, 30], "counts": [1200]}}, "a mask of another size than the picture"
    yield {"segmentation": {"size": [30, 40], "counts": [1000]}}, "runs that do not fill the picture"
    yield {"segmentation": {"size": [30, 40], "counts": [-1, 1201]}}, "runs that are no list of lengths"
    yield {"segmentation": {"size": [30, 40], "counts": "PP\\ufffd"}}, "runs that are no COCO text"
    yield {"segmentation": {"size": [30, 40]}}, "runs that are no list of lengths"


@pytest.mark.parametrize(("change", "says"), list(broken()))
def test_a_broken_annotation_is_named_and_the_others_stay(folder, change, says):
    changed = content()
    changed["annotations"][0].update(change)
    found = read(folder, changed)
    assert [len(found.target(i).things) for i in range(3)] == [1, 1, 0]
    assert found.faults == (("annotation 1", says),)


def test_one_broken_polygon_of_several_leaves_alone(folder):
    changed = content()
    changed["annotations"][2]["segmentation"][1] = [1, 1, 4, 1]
    found = read(folder, changed)
    assert len(found.target(1).things[0].shape) == 1
    assert found.faults == (("annotation 3", "a polygon that is none, left out"),)


def test_broken_pictures_are_named(folder):
    changed = content()
    changed["images"] += [
        {"id": 1, "file_name": "../../etc/passwd", "height": 3, "width": 4},
        {"id": 2, "file_name": "/etc/passwd", "height": 3, "width": 4},
        {"id": 7, "file_name": "d.png", "height": 3, "width": 4},
        {"id": 3, "file_name": "d.png", "height": 0, "width": 4},
        {"id": 4, "file_name": None, "height": 3, "width": 4},
        {"file_name": "d.png", "height": 3, "width": 4},
        "nothing",
        {"id": 6, "file_name": "gone.png", "height": 3, "width": 4},
    ]
    changed["annotations"] += [None, {"id": "x"}]
    found = read(folder, changed)
    assert len(found) == 4
    with pytest.raises(ValueError, match=r"gone\.png is listed but not there"):
        found.picture(3)
    assert [one.where for one in found.faults] == [
        *("image 1", "image 2", "image 7", "image 3", "image 4", "image at place 8", "image at place 9", "image 6"),
        *("annotation at place 3", "annotation at place 4"),
    ]
    said = describe_faults(found.faults)
    assert said.startswith("2 with a file name that leads out of the folder (image 1, image 2); 2 with no id (")
    assert "1 with a file that is not there (image 6)" in said


def test_a_picture_of_another_size_than_its_annotations_is_a_reject(folder):
    photograph(30, 40).save(folder / "val2017" / "a.png")
    found = read(folder, content())
    with pytest.raises(ValueError, match=r"a\.png is 30 by 40 pixels, its annotations are for 40 by 30"):
        found.picture(0)


def test_other_files_are_refused(folder):
    path = folder / "annotations" / "instances_val2017.json"
    for text, says in (
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("\\ud800", "is not JSON"),
        ("[]", "is not COCO's: it needs the lists images, annotations, categories"),
        ('{"images": [], "annotations": {}, "categories": []}', "is not COCO's"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=says):
            open_objects(folder, "test")
    for categories, says in (
        ([], "needs a category or more"),
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "each with an id of its own"),
        ([{"id": 1}], "without an id and a name"),
        ([{"id": "1", "name": "a"}], "whose id is no whole number"),
        ([None], "without an id and a name"),
    ):
        with pytest.raises(ValueError, match=says):
            read(folder, {**content(), "categories": categories})
    with pytest.raises(ValueError, match="lists no picture that can be used"):
        read(folder, {**content(), "images": []})
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"needs one annotations/instances_val….json, got none"):
        open_objects(folder, "test")


@pytest.mark.parametrize("tries", [400, pytest.param(20_000, marks=pytest.mark.slow)])
def test_nothing_in_the_json_is_fatal(folder, tries):
    """Values of all kinds in all places: data sets, faults or one ValueError."""
    draw = random.Random(0)
    odd = [
        None,
        True,
        -1,
        0,
        1e308,
        float("nan"),
        "",
        "x",
        [],
        {},
        [[]],
        10**30,
        [1e308] * 8,
        [None] * 6,
        {"counts": 3},
    ]
    read_at_all = 0
    for _ in range(tries):
        changed = copy.deepcopy(content())
        for _ in range(draw.choice((1, 1, 3))):
            place = changed
            while True:
                key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
                if not isinstance(place[key], dict | list) or not place[key] or draw.random() < 0.2:
                    place[key] = draw.choice(odd)
                    break
                place = place[key]
        try:
            found = read(folder, changed)
        except ValueError:
            continue
        read_at_all += 1
        for index in range(len(found)):
            assert found.target(index).masks().ndim == 3
    assert 0.25 * tries < read_at_all < 0.75 * tries


@given(arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_runs_are_masks_and_cocos_runs(mask):
    runs = runs_of(mask)
    assert np.array_equal(runs.mask(), mask)
    packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert runs_from(packed, *mask.shape) == runs
    assert runs_from(runs.counts.tolist(), *mask.shape) == runs


def test_the_picture_itself_is_unchanged(folder):
    found = read(folder, content())
    with Image.open(folder / "val2017" / "a.png") as image:
        assert found.picture(0).tobytes() == image.tobytes()
