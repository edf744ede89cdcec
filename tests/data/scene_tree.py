from functools import cache

from PIL import Image

from skimba.data import FashionScenes, embedded_test_images

CLASSES = tuple(f"n{label:08d}" for label in range(10))


@cache
def scenes(split):
    return FashionScenes(embedded_test_images()[:80], split, size=56, most_items=1).labelled()


def write_tree(root, train=40, test=20):
    """ImageNet's layout: train and val, a folder for each class, fashion scenes as JPEG files."""
    for split, folder, count in (("train", "train", train), ("test", "val", test)):
        images = scenes(split)
        for name in CLASSES:
            (root / folder / name).mkdir(parents=True)
        by_class = {label: [i for i in range(len(images)) if images.target(i) == label] for label in range(10)}
        for place in range(count):
            label = place % 10
            index = by_class[label][place // 10]
            images.picture(index).save(root / folder / CLASSES[label] / f"{index}.jpg", quality=95)
    return root


def corrupt(folder, count):
    """Damage pictures in three ways: cut off, no image at all, empty. Their names."""
    paths = sorted(folder.rglob("*.jpg"))[1 : 4 * count : 4]
    for place, path in enumerate(paths):
        path.write_bytes((path.read_bytes()[:300], b"no image", b"")[place % 3])
    assert len(paths) == count
    return [str(path.relative_to(folder)) for path in paths]


def pixels(path):
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()
