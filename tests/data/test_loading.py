import numpy as np
import pytest
import torch

from skimba.data import Selected, embedded_test_images, read_image_folder
from skimba.data.loading import ClassReader, Wanted, in_order, load_batches
from skimba.data.transforms import evaluation_transform, imagenet_transform, shift_transform
from skimba.store import create_model
from tests.data.scene_tree import corrupt, write_tree


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path, train=20, test=10)


def model(**sizes):
    return create_model("vim_micro_patch4_56", depth=1, **sizes)


def test_the_evaluation_transform_is_the_data_sets_normalisation():
    images = embedded_test_images()[:4]
    transform = evaluation_transform(create_model("vim_micro"))
    found = torch.stack([transform(images.picture(i)) for i in range(4)])
    torch.testing.assert_close(found, images.normalised())


def test_large_pictures_are_resized_and_cropped_as_the_official_models_expect(tree):
    picture = read_image_folder(tree / "train").picture(0).resize((400, 300))
    found = evaluation_transform(create_model("vim_tiny_patch16_224", depth=1))(picture)
    assert found.shape == (3, 224, 224)
    resized = np.asarray(picture.resize((341, 256), resample=3), np.float32)[16:240, 58:282] / 255
    expected = (resized - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.abs(found.movedim(0, -1).numpy() - expected).mean() < 0.02


def test_randomness_follows_from_a_pictures_seed_alone(tree):
    pictures = read_image_folder(tree / "train")
    transform = imagenet_transform(model(), "rand-m9-mstd0.5-inc1", 0.3, 0.25)
    wanted = [Wanted(index, 7 + index) for index in range(12)]
    whole = next(iter(load_batches(pictures, ClassReader(transform), [wanted], workers=0)))
    parts = list(load_batches(pictures, ClassReader(transform), [wanted[:4], wanted[4:8], wanted[8:]], workers=2))
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
    others = next(
        iter(load_batches(pictures, ClassReader(transform), [[Wanted(i, 8 + i) for i in range(12)]], workers=0))
    )
    assert not torch.equal(others.images, whole.images)


def test_shifted_pictures_move_by_a_pixel_and_mirror():
    images = embedded_test_images()[:1]
    images.pixels[:] = 0
    images.pixels[0, 0, 10, 5] = 255
    transform = shift_transform(create_model("vim_micro", depth=1))
    wanted = [[Wanted(0, seed) for seed in range(200)]]
    batch = next(iter(load_batches(images, ClassReader(transform), wanted, workers=0)))
    seen = {tuple((image[0] == image[0].max()).nonzero()[0].tolist()) for image in batch.images}
    assert seen == {(row, column) for row in (9, 10, 11) for column in (4, 5, 6, 21, 22, 23)}


def test_an_unreadable_picture_is_left_out_or_replaced_and_reported(tree):
    names = corrupt(tree / "train", 3)
    pictures = read_image_folder(tree / "train")
    transform = evaluation_transform(model())
    batches = list(load_batches(pictures, ClassReader(transform), in_order(len(pictures), 8), workers=1))
    assert sum(len(batch.images) for batch in batches) == 17
    assert [one.name for batch in batches for one in batch.rejected] == names
    everything = [Wanted(index, index) for index in range(20)]
    batch = next(iter(load_batches(pictures, ClassReader(transform), [everything], workers=0)))
    assert len(batch.images) == 20
    assert {one.name for one in batch.rejected} == set(names)
    assert [pictures.target(i) for i in batch.indices.tolist()] == batch.targets.tolist()
    with pytest.raises(ValueError, match="cannot be read as an image"):
        list(load_batches(pictures, ClassReader(transform), [everything], workers=1, strict=True))


def test_a_data_set_of_unreadable_pictures_gives_an_empty_batch(tree):
    corrupt(tree / "val", 2)
    pictures = read_image_folder(tree / "val")
    broken = [i for i in range(len(pictures)) if _is_broken(pictures, i)]
    batch = next(
        iter(
            load_batches(
                Selected(pictures, broken), ClassReader(evaluation_transform(model())), in_order(2, 2), workers=0
            )
        )
    )
    assert len(batch.indices) == len(batch.images) == 0
    assert len(batch.rejected) == 2


def _is_broken(pictures, index):
    try:
        pictures.picture(index)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize(("count", "processes"), [(10, 3), (3, 4), (1, 1)])
def test_processes_share_the_pictures_and_none_comes_twice(count, processes):
    seen = [w.place for r in range(processes) for batch in in_order(count, 2, r, processes) for w in batch]
    assert sorted(seen) == list(range(count))
