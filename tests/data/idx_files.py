import gzip
import struct

from skimba.data import embedded_test_images


def write_idx(path, array, pack=True):
    content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content, mtime=0) if pack else content)


def write_fashion_mnist(folder, train=64, test=40):
    """A small Fashion-MNIST of real images, in the data set's own files."""
    images = embedded_test_images()
    for prefix, part in (("train", images[:train]), ("t10k", images[train : train + test])):
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", part.pixels[:, 0].numpy())
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", part.labels.numpy().astype("uint8"))
    return folder
