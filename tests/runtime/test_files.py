import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from types import SimpleNamespace

import pytest

from skimba.runtime import files
from skimba.runtime.files import check_output, check_regular, write_atomically, write_text_atomically


def special_files(folder):
    """One of each kind that is no regular file, with its name in words."""
    (folder / "folder").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "device").symlink_to("/dev/full")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "socket"))
    return {"folder": "a folder", "fifo": "a FIFO", "device": "a character device", "socket": "a socket"}


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_only_regular_files_are_read_and_written(tmp_path):
    before = os.stat("/dev/full")
    for name, kind in special_files(tmp_path).items():
        for refuses in (check_regular, check_output, lambda path: write_text_atomically(path, "x")):
            with pytest.raises(ValueError, match=f"is {kind}, not a regular file"):
                refuses(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["device", "fifo", "folder", "socket"]
    assert os.stat("/dev/full").st_rdev == before.st_rdev
    with pytest.raises(FileNotFoundError):
        check_regular(tmp_path / "nothing")


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "real").write_text("old")
    for name, target in (("to a file", "far/real"), ("to nothing yet", "far/new")):
        link = tmp_path / name
        link.symlink_to(target)
        write_text_atomically(check_output(link), "new")
        assert link.is_symlink()
        assert (tmp_path / target).read_text() == "new"
    assert len(list(tmp_path.rglob("*"))) == 5


def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for refuses in (check_output, lambda path: write_text_atomically(path, "x")):
        with pytest.raises(ValueError, match="is a link to itself"):
            refuses(tmp_path / "loop")


def private(path):
    """As safetensors writes: a new file that nobody else may read."""
    os.unlink(path)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def test_modes_are_kept_and_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "new", private)
    finally:
        os.umask(before)
    assert mode(tmp_path / "new") == 0o640
    (tmp_path / "new").chmod(0o604)
    write_atomically(tmp_path / "new", private)
    assert mode(tmp_path / "new") == 0o604


def test_an_output_is_checked_before_any_work(tmp_path):
    picture = tmp_path / "a.jpg"
    picture.write_text("picture")
    (tmp_path / "link.csv").symlink_to("a.jpg")
    os.link(picture, tmp_path / "hard.csv")
    for output in ("a.jpg", "link.csv", "hard.csv"):
        with pytest.raises(ValueError, match="is an input of the same run"):
            check_output(tmp_path / output, inputs=[tmp_path / "gone", picture])
    for name, got in (("x.txt", "'.txt'"), ("x", "'no suffix'")):
        with pytest.raises(ValueError, match=rf"must end in \.csv or \.parquet, got {got}"):
            check_output(tmp_path / name, (".csv", ".parquet"))
    for name in ("x.csv", "x.PARQUET", "made/later/x.csv"):
        assert check_output(tmp_path / name, (".csv", ".parquet"), [picture]) == tmp_path / name
    with pytest.raises(NotADirectoryError, match=r"a\.jpg is not a folder"):
        check_output(picture / "x.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "hard.csv", "link.csv"]


def test_read_only_places_are_refused(tmp_path, monkeypatch):
    (tmp_path / "old").write_text("old")
    for refused, says in (
        (tmp_path, "the folder .* is not writable"),
        (tmp_path / "old", "the file there is read-only"),
    ):
        # root may write anything, so the system's answer is given here
        monkeypatch.setattr(os, "access", lambda path, asked, refused=refused: path != refused)
        with pytest.raises(PermissionError, match=says):
            check_output(tmp_path / "old")


def test_missing_folders_are_made(tmp_path):
    write_text_atomically(tmp_path / "a" / "b" / "c.txt", "text")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "text"


def failing(error):
    def write(path):
        with open(path, "w") as file:
            file.write("half")
        raise error

    return write


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device", "x"), r"cannot write \S+ \(No space left on device\); what was there"),
        (RuntimeError("PytorchStreamWriter\n failed " + "x" * 900), r"\(PytorchStreamWriter failed x{170,180}\); what"),
    ],
)
def test_a_failure_is_one_short_line_and_leaves_the_old_file(tmp_path, error, says):
    (tmp_path / "a").write_text("old")
    with pytest.raises(OSError, match=says):
        write_atomically(tmp_path / "a", failing(error))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_full_disk_is_named_whatever_the_writer_says(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    for error in (RuntimeError("[enforce fail at inline_container.cc:672]"), ValueError("ArrowInvalid")):
        with pytest.raises(OSError, match=r"\(No space left on device\); what was there before is intact"):
            write_atomically(tmp_path / "a", failing(error))
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a", failing(KeyboardInterrupt()))
    assert not list(tmp_path.iterdir())


def test_a_mistake_in_the_program_is_not_taken_for_a_failure_to_write(tmp_path):
    with pytest.raises(TypeError):
        write_atomically(tmp_path / "a", failing(TypeError("no tensor")))
    assert not list(tmp_path.iterdir())


def test_what_lies_at_the_partial_files_place_is_never_written(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "a.partial").symlink_to("precious")
    write_text_atomically(tmp_path / "a", "new")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "a.partial").exists()


# Dies at the n-th event of the file system within the call: before each file is opened, removed, changed or renamed.
KILLED = """
import importlib.util, os, signal, sys
spec = importlib.util.spec_from_file_location("files", sys.argv[1])
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
left = int(sys.argv[3])
def count(event, arguments):
    global left
    if event in ("open", "os.rename", "os.remove", "os.chmod", "os.mkdir") and arguments[0] is not None:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
def write(path):
    with open(path, "wb", buffering=0) as file:
        file.write(b"new " * 1000)
        with open(path, "ab", buffering=0) as file:
            file.write(b"content" * 1000)
sys.addaudithook(count)
files.write_atomically(sys.argv[2], write)
"""
NEW = b"new " * 1000 + b"content" * 1000


@pytest.mark.parametrize("old", [None, b"old" * 10_000])
def test_a_kill_at_any_step_leaves_the_old_or_the_new_file(tmp_path, old):
    path, codes, seen = tmp_path / "a", [], set()
    for step in range(50):
        if old is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(old)
        call = [sys.executable, "-S", "-c", KILLED, files.__file__, str(path), str(step)]
        codes.append(subprocess.run(call, check=False).returncode)
        found = path.read_bytes() if path.exists() else None
        assert found in (old, NEW)
        seen.add(found)
        assert {one.name for one in tmp_path.iterdir()} <= {"a", "a.partial"}
        if codes[-1] == 0:
            break
    assert codes == [-signal.SIGKILL] * step + [0]
    assert step >= 7
    assert seen == {old, NEW}
    assert [one.name for one in tmp_path.iterdir()] == ["a"]
