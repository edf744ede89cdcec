"""The page without a server: models answer in the browser."""

import http.server
import os
import shutil
import threading
from functools import partial
from pathlib import Path

import pytest
import torch

import skimba
from skimba.explorer import named_offer
from skimba.explorer.answers import answer
from skimba.explorer.catalogue import Opened
from skimba.explorer.shown_model import ShownModel
from skimba.explorer.static_page import ORT_FILES, check_folders, sides_written, write_static

ORT_WEB = Path(os.environ.get("SKIMBA_ORT_WEB", "node_modules/onnxruntime-web/dist"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def opened():
    return Opened(named_offer("vim_micro"))


@pytest.mark.parametrize("method", ["hold", "top"])
def test_a_shown_model_gives_the_logits_and_where_its_tokens_are(opened, method):
    image = opened.transform(opened.offer.gallery.examples()[3].image)[None]
    pruned = skimba.prune(opened.dense, method, {2: 0.6, 4: 0.6})
    owned = method == "hold"
    with torch.inference_mode():
        logits, *places = ShownModel(pruned, owned)(image)
        torch.testing.assert_close(logits, pruned(image), atol=1e-5, rtol=1e-5)
    stages = answer(opened, pruned, image, lambda: pytest.fail("a classifier finds no objects"))["stages"][1:]
    cells = [position for position in range(197) if position != 98]
    for number, stage in enumerate(stages):
        position = places[(1 + owned) * number][0].tolist()
        if owned:
            owner = places[2 * number + 1][0].tolist()
            home = [cells.index(position[owner[cell]]) for cell in cells]
        else:
            home = [patch if cell in position else -1 for patch, cell in enumerate(cells)]
        assert home == stage["home"]


def test_what_is_missing_is_said_before_any_work(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="new or empty folder"):
        check_folders(tmp_path / "full", tmp_path)
    with pytest.raises(ValueError, match="npm install onnxruntime-web"):
        check_folders(tmp_path / "new", tmp_path)
    for name in ORT_FILES:
        (tmp_path / name).write_text("")
    check_folders(tmp_path / "new", tmp_path)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["videomamba_micro", "upernet:plain_mamba_micro"])
def test_what_needs_the_server_is_refused_in_a_sentence(tmp_path, name):
    with pytest.raises(ValueError, match=f"need the server: skimba explore {name}"):
        write_static(Opened(named_offer(name)), tmp_path / "page", tmp_path, sides_written())
    assert not (tmp_path / "page").exists()


class Quiet(http.server.SimpleHTTPRequestHandler):
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}  # noqa: RUF012

    def log_message(self, format, *args):
        pass


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)  # of exporters
@pytest.mark.skipif(not (ORT_WEB / ORT_FILES[0]).is_file(), reason="SKIMBA_ORT_WEB names no dist of onnxruntime-web")
@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
def test_models_answer_in_the_browser_as_here(opened, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    write_static(opened, tmp_path / "page", ORT_WEB, sides_written(("hold", "top"), (0.7,)))
    troubles = []
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "page")) as server,
        playwright.sync_playwright() as running,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-quic"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("requestfailed", lambda request: troubles.append(request.url))
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_selector("main[aria-busy=false]", timeout=120_000)
        found = {}
        for name in ("dense", "pruned", "rival"):
            rows = page.locator(f"#side-{name} .answers li").all()
            found[name] = {
                int(row.get_attribute("data-number")): float(row.get_attribute("data-probability")) for row in rows
            }
        assert "Detectors, segmenters, clips" in page.locator("#offline-note").inner_text()
        browser.close()
        server.shutdown()
    image = opened.transform(opened.offer.gallery.examples()[3].image)[None]
    models = {
        "dense": opened.dense,
        "pruned": skimba.prune(opened.dense, "hold", {1: 0.7, 3: 0.7}),
        "rival": skimba.prune(opened.dense, "top", {2: 0.7, 4: 0.7, 6: 0.7}),
    }
    for name, model in models.items():
        with torch.inference_mode():
            odds = model(image)[0].softmax(0)
        assert len(found[name]) == 5
        for number, probability in found[name].items():
            assert probability == pytest.approx(odds[number].item(), abs=1e-4)
    assert not troubles
