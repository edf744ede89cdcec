"""What the command line says when something goes wrong: one line, whatever it is."""

import json
import os
import signal
import sys
import time

import pytest

from skimba.cli import _commands, main, measuring
from skimba.runtime.messages import one_line, printable
from skimba.store import create_model
from skimba.store.publish import save_model
from tests.cli.test_cli import run
from tests.data.idx_files import write_fashion_mnist
from tests.data.scene_tree import write_tree
from tests.processes import Fork, skimba


def said(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["skimba", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    shown = capsys.readouterr()
    assert left.value.code == 2
    assert shown.err.count("\n") == 1
    assert "Traceback" not in shown.err
    return shown.err


def test_a_message_is_one_line_of_bounded_length_without_commands_to_the_terminal():
    assert printable("a\x1b[31mred\x1b[0m\nb\tc\x07\x9b2J\x1b]0;title\x07 \u202e\udcff") == "ared b c \\xff"
    assert printable("ü π …") == "ü π …"
    assert len(one_line(ValueError("x" * 150_000))) == 2_000
    assert one_line(ValueError()) == "ValueError"
    assert one_line(KeyError("model")) == "KeyError: 'model'"


@pytest.mark.parametrize(
    "error", [KeyError("k"), IndexError("i"), AssertionError(), ZeroDivisionError("z"), MemoryError()]
)
def test_whatever_comes_is_a_line_and_a_traceback_on_demand(monkeypatch, capsys, error):
    def fail():
        raise error

    monkeypatch.setattr(_commands, "run", fail)
    monkeypatch.delenv("SKIMBA_DEBUG", raising=False)
    assert type(error).__name__ in (shown := said(monkeypatch, capsys)) or str(error) in shown
    monkeypatch.setenv("SKIMBA_DEBUG", "1")
    with pytest.raises(SystemExit):
        main()
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_a_line_and_exit_code_130(monkeypatch, capsys):
    def interrupt(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("skimba.cli.measuring.examine", interrupt)
    monkeypatch.setattr(sys, "argv", ["skimba", "doctor"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 130
    assert capsys.readouterr().err == "skimba: interrupted\n"
    monkeypatch.setattr(_commands, "run", interrupt)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 130
    assert capsys.readouterr().err == "skimba: interrupted\n"


def search():
    """A search for a schedule that says when it begins."""

    def begun(*given, **named):
        print("begun")
        return prune(*given, **named)

    prune, measuring.prune = measuring.prune, begun
    skimba("schedule", "vim_small_patch16_224", "--speedup", "1.5")


def test_a_search_for_a_schedule_can_be_interrupted():
    with Fork(search) as process:
        process.wait_until(lambda: process.stdout == "begun\n")
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert process.stderr.endswith("skimba: interrupted\n")
    assert process.returncode == 130


def test_outputs_are_checked_before_any_work(tmp_path, monkeypatch, capsys):
    data = write_fashion_mnist(tmp_path)
    monkeypatch.setattr("skimba.cli.evaluate.predict_all", lambda *given: pytest.fail("work"))
    monkeypatch.setattr("skimba.cli.predict.predict_files", lambda *given: pytest.fail("work"))
    monkeypatch.setattr("skimba.cli.measuring.prune", lambda *given, **named: pytest.fail("work"))
    monkeypatch.setattr("skimba.cli.publish.save_model", lambda *given: pytest.fail("work"))
    picture = tmp_path / "a.png"
    picture.write_bytes(b"")
    settings, model = tmp_path / "found.json", tmp_path / "m.safetensors"
    settings.write_text('{"method": "hold"}')
    save_model(create_model("vim_micro", depth=1), model)
    evaluate = ["eval", "vim_micro", "--data", data]
    schedule = ["schedule", "vim_micro", "--flops", "0.7"]
    for arguments, says in (
        ([*evaluate, "--predictions", tmp_path / "a.txt"], "must end in .csv or .parquet"),
        ([*evaluate, "--predictions", "/dev/full"], "must end in"),
        ([*evaluate, "--confusion", tmp_path / "a.parquet"], "must end in .csv"),
        ([*evaluate, "--confusion", settings / "a.csv"], "is not a folder"),
        (["predict", "vim_micro", picture, "--out", picture], "must end in .csv or .parquet"),
        (["predict", "vim_micro", picture, "--out", "/dev/full"], "must end in"),
        ([*schedule, "--prune", settings, "--out", settings], "is an input of the same run"),
        ([*schedule, "--out", settings / "b.json"], "is not a folder"),
        (["demo", "--picture", tmp_path / "a.txt"], "must end in .png"),
        (["export-weights", model, "--out", model], "is an input of the same run"),
        (["export-weights", "vim_micro", "--prune", settings, "--out", tmp_path / "found.safetensors"], "is an input"),
    ):
        assert says in said(monkeypatch, capsys, *arguments)
    table = tmp_path / "b.csv"
    table.write_text("not a picture")
    assert "is an input of the same run" in said(monkeypatch, capsys, "predict", "vim_micro", table, "--out", table)
    assert table.read_text() == "not a picture"


def test_json_that_is_none_names_its_file(tmp_path, monkeypatch, capsys):
    bad = tmp_path / "bad.json"
    bad.write_text('{"top1": ')
    export = ["export-weights", "vim_micro", "--out", tmp_path / "m.safetensors", "--figures", bad]
    assert "bad.json is not JSON" in said(monkeypatch, capsys, *export)
    assert not (tmp_path / "m.safetensors").exists()
    assert "bad.json is not JSON" in said(monkeypatch, capsys, "flops", "vim_micro", "--prune", bad)
    os.mkfifo(tmp_path / "fifo.json")
    assert "a FIFO" in said(monkeypatch, capsys, "flops", "vim_micro", "--prune", tmp_path / "fifo.json")


def test_a_smoke_evaluation_reads_pictures_as_the_model_takes_them(tmp_path, monkeypatch, capsys):
    tree = write_tree(tmp_path / "tree", train=10, test=10)
    for source in ("recipes/vim_micro.toml", "vim_micro"):
        run(monkeypatch, "eval", source, "--data", tree, "--smoke", "--json")
        assert json.loads(capsys.readouterr().out)["images"] == 8


def test_a_push_without_the_hub_is_a_line(tmp_path, monkeypatch, capsys):
    class Unreachable:
        def create_repo(self, *given, **named):
            raise RuntimeError("[Errno -3] Temporary failure in name resolution")

    monkeypatch.setattr("skimba.store.publish.HfApi", Unreachable)
    out = tmp_path / "m.safetensors"
    shown = said(monkeypatch, capsys, "export-weights", "vim_micro", "--out", out, "--push", "user/m")
    assert "cannot push to user/m (RuntimeError" in shown
    assert "is written and can be pushed again" in shown
    assert out.exists()


def test_a_convolutional_model_is_timed(monkeypatch, capsys):
    run(
        monkeypatch,
        "bench",
        "resnet18",
        "--cases",
        "dense",
        "--batch",
        "1",
        "--img-size",
        "32",
        "--rounds",
        "1",
        "--json",
    )
    assert [t["img_size"] for t in json.loads(capsys.readouterr().out)["timings"]] == [32]


def test_options_are_grouped_and_no_command_takes_more_than_ten():
    import inspect

    from skimba.cli import compare, evaluate, measuring, predict, publish, train

    for module in (compare, evaluate, measuring, predict, publish, train):
        for function in vars(module).values():
            if inspect.isfunction(function) and function.__module__ == module.__name__:
                assert len(inspect.signature(function).parameters) <= 10, function
