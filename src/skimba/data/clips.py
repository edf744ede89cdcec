"""Clips in video files, decoded by PyAV: FFmpeg in one wheel for every platform, with a time stamp for every frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from skimba.data.decoding import MOST_PIXELS
from skimba.data.image_files import ImageFile, ImageFiles, in_class_folders, in_list
from skimba.data.walking import walk_all
from skimba.runtime.files import check_regular
from skimba.runtime.messages import plain
from skimba.runtime.names import escape

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

EXTENSIONS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})
FORMATS = "mov,mp4,matroska,webm,avi"  # of FFmpeg's, those that are no playlists: a playlist can name other files


@dataclass(frozen=True, eq=False)
class ClipFiles(ImageFiles):
    """:class:`~skimba.data.Clips` in video files."""

    def picture(self, index: int) -> Image.Image:
        return self.frames(index, 1)[0]

    def frames(self, index: int, count: int) -> list[Image.Image]:
        file = self.files[index]
        if file.unusable:
            raise ValueError(f"{escape(file.name)} {file.unusable}")
        return read_frames(file.path, count)


def read_clip_folder(root: str | Path, classes: Sequence[str] | None = None) -> ClipFiles:
    """A folder with one subfolder of clips per class, as Kinetics is laid out. Raises as
    :func:`~skimba.data.read_image_folder`."""
    return ClipFiles(*in_class_folders(Path(root), classes, EXTENSIONS, "clip"))


def read_clip_list(root: str | Path, labels: str | Path, classes: Sequence[str]) -> ClipFiles:
    """A flat folder of clips and a text file that names their classes. Arguments and errors as of
    :func:`~skimba.data.read_labelled_list`."""
    return ClipFiles(in_list(Path(root), Path(labels), classes, EXTENSIONS, "clip"), tuple(classes))


def find_clips(paths: Iterable[str | Path]) -> ClipFiles:
    """All clips in files and folders (recursively), in order, without classes.

    Raises:
        FileNotFoundError: no such path.
        ValueError: no clip at all.
    """
    files = [
        ImageFile(str(file), str(file), unusable=unusable)
        for (file, unusable), named in walk_all(paths)
        if named or unusable or file.suffix.lower() in EXTENSIONS
    ]
    if not files:
        raise ValueError(f"no clip in {', '.join(map(str, paths))} ({', '.join(sorted(EXTENSIONS))})")
    return ClipFiles(files)


def read_frames(path: str | Path, count: int) -> list[Image.Image]:
    """Frames from the middles of ``count`` equal parts of a video, RGB; a short one shows some of them twice.

    Args:
        path: MP4, MOV, MKV, WebM or AVI by content, whatever the suffix.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be decoded, or has no frame.
        ImportError: PyAV is not installed (``pip install 'skimba[video]'``).
    """
    try:
        import av  # only clips need it
    except ImportError as error:
        raise ImportError("clips need PyAV: pip install 'skimba[video]'") from error
    check_regular(path)
    try:
        with av.open(str(path), options={"format_whitelist": FORMATS, "protocol_whitelist": "file"}) as container:
            stream = _video(container)
            return _frames_at(container, stream, _middles(container, stream, count))
    except Exception as error:  # for broken files FFmpeg's wrapper raises UnicodeDecodeError and others too
        reason = error.strerror if isinstance(error, av.error.FFmpegError) else error
        raise ValueError(f"{escape(str(path))} cannot be read as a clip: {plain(reason)}") from error


def _video(container: InputContainer) -> VideoStream:
    """The first video stream. Raises ValueError if it cannot be decoded."""
    if not container.streams.video:
        raise ValueError("it holds no video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise ValueError("FFmpeg knows no decoder of its video stream")
    if stream.width * stream.height > MOST_PIXELS:
        raise ValueError(f"it has frames of {stream.width} x {stream.height} pixels, the most are {MOST_PIXELS}")
    stream.thread_type = "AUTO"
    return stream


def _middles(container: InputContainer, stream: VideoStream, count: int) -> list[int]:
    """Time stamps of the frames in the middles of equal parts: packets tell them, nothing is decoded."""
    times = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
    if not times:
        raise ValueError("it holds no frame")
    return [times[(2 * part + 1) * len(times) // (2 * count)] for part in range(count)]


def _frames_at(container: InputContainer, stream: VideoStream, times: Sequence[int]) -> list[Image.Image]:
    """The frames shown at those time stamps, ascending; each is decoded from the key frame before it."""
    found: list[Image.Image] = []
    here: Any = None
    for time in times:
        if here is None or here.pts < time:
            container.seek(time, stream=stream)
            for frame in container.decode(stream):
                here = frame
                if frame.pts is not None and frame.pts >= time:
                    break
        if here is None:
            raise ValueError("none of its frames can be decoded")
        found.append(here.to_image())
    return found
