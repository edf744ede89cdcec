"""Clips in video files: frames from the middles of equal parts, in every container; broken files are named."""

from dataclasses import replace

import av
import numpy as np
import pytest
import torch

from skimba.data import LabelledImages, MovingItems, find_clips, open_clips, read_clip_folder, select
from skimba.data.clips import read_frames
from skimba.models import VideoMambaClips
from skimba.tasks.clips import ClipClassification

CODECS = {".mp4": "mpeg4", ".mkv": "mpeg4", ".avi": "mpeg4", ".webm": "libvpx"}


def write_clip(path, count=12, size=(32, 48)):
    """A clip whose frames get brighter: their number can be read off them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix], rate=10)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"g": "5"}  # a key frame now and then, so that seeking has something to do
        for number in range(count):
            pixels = np.full((*size, 3), 10 + 240 * number // count, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def numbers(frames, count=12):
    return [round((np.asarray(frame).mean() - 10) * count / 240) for frame in frames]


@pytest.mark.parametrize("suffix", CODECS)
def test_frames_are_from_the_middles_of_equal_parts(tmp_path, suffix):
    write_clip(tmp_path / f"clip{suffix}")
    frames = read_frames(tmp_path / f"clip{suffix}", 4)
    assert {frame.size for frame in frames} == {(48, 32)}
    assert numbers(frames) == [1, 4, 7, 10]
    assert numbers(read_frames(tmp_path / f"clip{suffix}", 1)) == [6]


def test_a_short_clip_shows_frames_twice(tmp_path):
    write_clip(tmp_path / "clip.mp4", count=3)
    assert numbers(read_frames(tmp_path / "clip.mp4", 6), 3) == [0, 0, 1, 1, 2, 2]


def test_folders_of_clips(tmp_path):
    for name in ("jump/a.mp4", "jump/b.mkv", "run/c.avi", "run/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no clip") if name.endswith("txt") else write_clip(tmp_path / name)
    labelled = read_clip_folder(tmp_path)
    assert labelled.classes == ("jump", "run")
    assert [labelled.target(i) for i in range(3)] == [0, 0, 1]
    assert len(find_clips([tmp_path])) == 3
    assert labelled.picture(2).size == (48, 32)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot be read as a clip"),
        (b"plain text", "cannot be read as a clip"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "cannot be read as a clip"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "cannot be read as a clip"),
    ],
)
def test_what_is_no_clip_is_named(tmp_path, content, says):
    (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_frames(tmp_path / "bad.mp4", 4)


def test_a_clip_cut_anywhere_gives_frames_or_a_sentence(tmp_path):
    write_clip(tmp_path / "whole.mkv")
    content, refused = (tmp_path / "whole.mkv").read_bytes(), []
    for end in range(0, len(content), max(len(content) // 40, 1)):
        (tmp_path / "cut.mkv").write_bytes(content[:end])
        try:
            frames = read_frames(tmp_path / "cut.mkv", 4)
        except ValueError as error:
            refused.append(str(error))
        else:
            assert len(frames) == 4
    assert 0 < len(refused) < 40
    assert not any("\n" in reason for reason in refused)


def test_sound_alone_is_no_clip(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match="holds no video stream"):
        read_frames(tmp_path / "sound.mp4", 4)


def test_a_clip_without_a_decoder_is_a_sentence(tmp_path):
    write_clip(tmp_path / "clip.mkv")
    content = (tmp_path / "clip.mkv").read_bytes()
    assert content.count(b"V_MPEG4/ISO/ASP") == 1
    (tmp_path / "clip.mkv").write_bytes(content.replace(b"V_MPEG4/ISO/ASP", b"V_OTHER/ISO/ASP"))
    with pytest.raises(ValueError, match=r"clip\.mkv cannot be read as a clip: FFmpeg knows no decoder"):
        read_frames(tmp_path / "clip.mkv", 4)


@pytest.fixture
def moving():
    pixels = torch.full((12, 1, 28, 28), 255, dtype=torch.uint8)
    return MovingItems(LabelledImages(pixels, torch.arange(12) % 3, ("a", "b", "c"), 0.5, 0.5), "test", size=32)


def test_items_move_as_their_class_says(moving):
    assert len(moving.classes) == 12
    for index in range(len(moving)):
        item, direction = moving.classes[moving.target(index)].split()
        assert item == "abc"[index % 3]
        first, last = (_centre(moving, index, moment) for moment in (0, -1))
        gone = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[direction]
        assert np.dot(np.subtract(last, first), gone) > 3
        assert abs(np.dot(np.subtract(last, first), gone[::-1])) < 3


def _centre(moving, index, moment):
    """The centre (x y) of where a clip differs from that of an invisible item."""
    black = replace(moving.items, pixels=torch.zeros_like(moving.items.pixels))
    seen, unseen = (np.asarray(clips.frames(index, 8)[moment]) for clips in (moving, replace(moving, items=black)))
    y, x = np.nonzero((seen != unseen).any(2))
    return x.mean(), y.mean()


def test_clips_are_the_same_every_time_and_may_be_selected(moving):
    again = select(moving, [3, 5])
    assert [frame.tobytes() for frame in again.frames(1, 8)] == [frame.tobytes() for frame in moving.frames(5, 8)]
    assert again.target(0) == moving.target(3)


def test_the_task_reads_clips_and_refuses_pictures(moving):
    model = VideoMambaClips(32, 8, frames=4, embed_dim=16, depth=2, num_classes=12)
    model.pretrained_cfg = {"input_size": model.input_shape(), "mean": (0.4,) * 3, "std": (0.2,) * 3, "crop_pct": 1.0}
    task = ClipClassification()
    task.check(model, moving)
    for reader in (task.reader(model), task.training_reader(model)):
        clips, labels = reader.collate([reader.read(moving, index) for index in range(3)])
        assert clips.shape == (3, 3, 4, 32, 32)
        assert clips.dtype == torch.float32
        assert labels.tolist() == [moving.target(index) for index in range(3)]
    with pytest.raises(ValueError, match="VideoMambaClips takes clips; these are pictures"):
        task.check(model, moving.items)
    with pytest.raises(ValueError, match="clips are augmented by shifts, got augmentation 'imagenet'"):
        ClipClassification(augmentation="imagenet").training_reader(model)


def test_a_list_names_the_classes_of_a_flat_folder(tmp_path):
    for name in ("x.mp4", "y.mp4"):
        write_clip(tmp_path / "val" / name, count=3)
    (tmp_path / "list.csv").write_text("x.mp4 1\ny.mp4 0\n")
    clips = open_clips(tmp_path, "test", classes=("still", "moving"), labels=tmp_path / "list.csv")
    assert [(clips.name(i), clips.target(i)) for i in range(2)] == [("x.mp4", 1), ("y.mp4", 0)]
    (tmp_path / "list.csv").write_text("x.mp4 1\n")
    with pytest.raises(ValueError, match=r"has no line for 1 clips of .*, for instance y\.mp4"):
        open_clips(tmp_path, "test", classes=("still", "moving"), labels=tmp_path / "list.csv")


def test_what_comes_with_the_package_moves():
    clips = open_clips(None, "test")
    assert len(clips) == 1000
    assert len(clips.classes) == 40
