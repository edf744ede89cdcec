"""Runs of ``predict`` that were interrupted, and what they leave."""

import resource
import time

import pytest

from skimba.data import embedded_test_images
from skimba.runtime.locks import sole_writer
from skimba.store import create_model
from skimba.tasks import CLASSIFICATION, ClassPrediction, resumable
from skimba.tasks.resumable import NOTE, predict_files
from skimba.tasks.tables import read_rows
from tests.processes import Fork, forked

PICTURES = embedded_test_images()[:12]


@pytest.fixture(scope="module")
def model():
    return create_model("vim_micro", depth=1)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(resumable, "CHUNK", 4)


def folder(tmp_path):
    return tmp_path / "a.csv.parts"


def predict(model, tmp_path):
    return predict_files(CLASSIFICATION, model, PICTURES, tmp_path / "a.csv", 4)


class Killed(BaseException):
    """As SIGKILL: nothing is cleaned up that a handler of exceptions would clean."""


@pytest.mark.parametrize("left", range(6))
def test_a_run_killed_while_it_removes_its_parts_is_finished_by_the_next(model, tmp_path, monkeypatch, left):
    removed = []
    parts = resumable.Parts(tmp_path / "a.csv")

    def until(path, missing_ok=False):
        if path.parent == parts.folder and ".partial" not in path.name:
            if len(removed) == left:
                raise Killed
            removed.append(path.name)
        unlink(path, missing_ok)

    unlink = type(parts.folder).unlink
    with monkeypatch.context() as patch:
        patch.setattr(type(parts.folder), "unlink", until)
        if left < 5:  # three chunks, the lock and the note
            with pytest.raises(Killed):
                predict(model, tmp_path)
            assert parts.folder.exists()
        else:
            predict(model, tmp_path)
    before = (tmp_path / "a.csv").read_text()
    assert predict(model, tmp_path) == (12, 0)
    assert (tmp_path / "a.csv").read_text() == before
    assert not parts.folder.exists()


def test_a_joined_run_is_not_predicted_again(model, tmp_path, monkeypatch):
    def killed(parts):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(resumable.Parts, "remove", killed)
        with pytest.raises(Killed):
            predict(model, tmp_path)
    monkeypatch.setattr(resumable, "run", lambda *given: pytest.fail("predicted again"))
    assert predict(model, tmp_path) == (12, 0)


@pytest.mark.parametrize("note", ["", '{"belongs": {"mod', "[]", "{}"])
def test_a_half_written_note_of_a_run_that_did_nothing_does_not_block_the_next(model, tmp_path, note):
    folder(tmp_path).mkdir()
    (folder(tmp_path) / NOTE).write_text(note)
    assert predict(model, tmp_path) == (12, 0)


def test_parts_without_a_note_are_not_taken(model, tmp_path):
    folder(tmp_path).mkdir()
    (folder(tmp_path) / "000000000.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="of a run that left no note; remove it to start over"):
        predict(model, tmp_path)


def hold_the_folder(folder):
    with sole_writer(folder):
        print("held")
        time.sleep(100)


def test_two_runs_into_one_table_are_refused(model, tmp_path):
    with Fork(hold_the_folder, folder(tmp_path)) as other:
        other.wait_until(lambda: other.stdout == "held\n")
        with pytest.raises(OSError, match="another process is writing to"):
            predict(model, tmp_path)
    assert predict(model, tmp_path) == (12, 0)


def predict_within(room, model, tmp_path):
    """With so many bytes for each file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        predict(model, tmp_path)
    except OSError as error:
        print(error)


@pytest.mark.parametrize("room", [0, pytest.param(1200, marks=pytest.mark.slow)])
def test_after_a_full_disk_the_run_goes_on(model, tmp_path, room):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    out = tmp_path / "a.csv"
    full = forked(predict_within, room, model, tmp_path)
    assert full.returncode == 0, full.stderr
    assert f"cannot write {tmp_path}" in full.stdout
    assert full.stdout.count("\n") == 1
    again = forked(predict_within, 2**30, model, tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout == ""
    assert len(read_rows(out, ClassPrediction)) == 12
    assert not folder(tmp_path).exists()
