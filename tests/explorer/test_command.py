"""``skimba explore`` itself."""

import re
import signal
import socket
import urllib.request

import pytest
from typer.testing import CliRunner

import skimba
from skimba.cli._commands import app
from skimba.cli.explore import offer_of
from skimba.explorer import Explorer
from skimba.store.publish import save_model
from tests.processes import Fork
from tests.processes import skimba as skimba_command


def run(*arguments):
    return CliRunner().invoke(app, ["explore", *arguments])


def test_it_prints_its_address_and_ends_with_ctrl_c():
    with Fork(skimba_command, "explore") as process:
        process.wait_until(lambda: process.poll() is not None or process.stdout.endswith("\n"))
        address = re.fullmatch(r"the explorer is at (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", process.stdout)[1]
        with urllib.request.urlopen(address, timeout=10) as page:
            assert b"skimba explorer" in page.read()
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert (process.returncode, process.stderr) == (130, "skimba: interrupted\n")


def test_sharing_is_refused_with_the_reason():
    found = run("--share")
    assert isinstance(found.exception, ValueError)
    assert "neither users nor passwords" in str(found.exception)
    assert "ssh -L" in str(found.exception)


def test_a_taken_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        found = run("--port", str(port))
    assert f"port {port} cannot be used" in str(found.exception)


def test_an_unknown_model_is_a_line_before_the_server_starts():
    assert "unknown model 'vim_nano'" in str(run("vim_nano").exception)
    assert "no weights file" in str(run("nowhere.safetensors").exception)


def test_a_saved_model_is_shown_as_it_was_pruned(tmp_path):
    dense = skimba.create_model("vim_micro", pretrained=True).eval()
    path = tmp_path / "pruned.safetensors"
    save_model(skimba.prune(dense, "top", {2: 0.5}), path)
    explorer = Explorer({"pruned.safetensors": offer_of(str(path), None)})
    asked = {"model": "pruned.safetensors", "picture": "example:0"}
    own = explorer.ask("answer", {**asked, "side": {"method": "own"}})
    plain = explorer.ask("answer", {**asked, "side": {"method": "dense"}})
    explorer.close()
    assert [stage["tokens"] for stage in own["stages"]] == [196, 98]
    assert [stage["tokens"] for stage in plain["stages"]] == [196]
    assert "skimba.unprune(model)" in plain["code"]["python"]
    for code in (own["code"]["python"], plain["code"]["python"]):
        names = {}
        exec(code, names)
        assert (names["model"].reducer is None) == ("unprune" in code)


def test_a_checkpoint_goes_with_its_name(tmp_path):
    dense = skimba.create_model("vim_micro", pretrained=True)
    save_model(dense, tmp_path / "own.safetensors")
    offer = offer_of("vim_micro", tmp_path / "own.safetensors")
    assert offer.name == "vim_micro (own.safetensors)"
    assert offer.load().num_classes == 10
    with pytest.raises(ValueError, match="has its own weights"):
        offer_of("a.safetensors", tmp_path / "own.safetensors")
