"""The page in a real browser: what it shows equals what the library says, without an error or a request elsewhere."""

import io
import shutil
import threading
from urllib.parse import urlsplit

import pytest
import torch
from PIL import Image

import skimba
from skimba.data.transforms import evaluation_transform
from skimba.explorer import Explorer, ExplorerServer, named_offer
from skimba.explorer.worker import Worker

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install 'skimba[dev]')")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
OPTIONS = (
    *("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
READY = "main[aria-busy=false]"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        launched = running.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser, server):
    """Opens the page; what goes wrong in it fails the test."""
    troubles, pages = [], []

    def open_page(**options):
        page = browser.new_page(**{"viewport": WIDE, **options})
        page.on("console", lambda message: message.type in ("error", "warning") and troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("requestfailed", lambda request: troubles.append(f"failed: {request.url}"))
        page.on("request", lambda request: is_here(request.url, server) or troubles.append(f"elsewhere: {request.url}"))
        page.goto(server.url)
        page.wait_for_selector(READY)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not troubles


def is_here(url, server):
    parts = urlsplit(url)
    return parts.scheme in ("blob", "data") or parts.netloc == f"127.0.0.1:{server.server_port}"


def wait(page):
    page.wait_for_selector(READY)
    page.locator("#status", has_text="Ready").wait_for()


def shown(page, side):
    """Class numbers and probabilities that a side lists."""
    rows = page.locator(f"#side-{side} .answers li").all()
    return [(int(row.get_attribute("data-number")), float(row.get_attribute("data-probability"))) for row in rows]


@pytest.fixture(scope="module")
def photo():
    generator = torch.Generator().manual_seed(5)
    pixels = (torch.rand(30, 40, 3, generator=generator) * 255).byte().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((320, 240)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_an_uploaded_photo_is_answered_as_the_library_answers_it(open_page, photo):
    page = open_page()
    page.locator("#file").set_input_files({"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": photo})
    page.locator("#examples button[aria-pressed=true]").wait_for(state="detached")
    wait(page)
    page.locator("#amount").fill("0.5")
    page.locator("#amount-value", has_text="50 %").wait_for()
    page.locator("#code-python", has_text="{1: 0.5, 3: 0.5}").wait_for()
    wait(page)

    dense = skimba.create_model("vim_micro", pretrained=True).eval()
    sides = {
        "dense": dense,
        "pruned": skimba.prune(dense, "hold", {1: 0.5, 3: 0.5}),
        "rival": skimba.prune(dense, "top", {2: 0.5, 4: 0.5, 6: 0.5}),
    }
    with Image.open(io.BytesIO(photo)) as image:
        pixels = evaluation_transform(dense)(image.convert("L"))[None]
    for name, model in sides.items():
        with torch.inference_mode():
            wanted = model(pixels)[0].softmax(0).topk(5)
        found = shown(page, name)
        assert [number for number, _ in found] == wanted.indices.tolist()
        assert [probability for _, probability in found] == pytest.approx(wanted.values.tolist(), abs=1e-6)
        gflops = skimba.count_flops(model, convention="exact").total / 1e9
        assert float(page.locator(f"#side-{name} .gflops").inner_text()) == pytest.approx(gflops, rel=5e-3)
        assert float(page.locator(f"#side-{name} .ms").inner_text()) > 0


def test_the_stages_follow_the_slider_and_a_click_names_the_owner(open_page, server, ask):
    page = open_page()
    assert not page.locator("#offline-note").is_visible()
    counts = {}
    for block in (0, 1, 8):
        page.locator("#block").fill(str(block))
        counts[block] = page.locator("#side-pruned .tokens").inner_text()
    assert counts == {0: "196 tokens", 1: "138 tokens", 8: "96 tokens"}
    _, answer = ask("answer", model="vim_micro", picture="example:3", side={"method": "hold", "share": 0.7})
    home = answer["stages"][-1]["home"]
    patch = next(p for p, owner in enumerate(home) if owner != p)
    box = page.locator("#side-pruned canvas").bounding_box()
    row, column = divmod(patch, 14)
    at = {"x": (column + 0.5) * box["width"] / 14, "y": (row + 0.5) * box["height"] / 14}
    page.locator("#side-pruned canvas").click(position=at)
    owner_row, owner_column = divmod(home[patch], 14)
    wanted = f"merged into row {owner_row + 1}, column {owner_column + 1}, which stands for {home.count(home[patch])}"
    page.locator("#patch-text", has_text=f"row {row + 1}, column {column + 1}").wait_for()
    assert wanted in page.locator("#patch-text").inner_text()
    wait(page)
    _, read = ask(
        "patch",
        model="vim_micro",
        picture="example:3",
        side={"method": "hold", "share": 0.7},
        block=int(page.locator("#patch-block").input_value()),
        patch=patch,
    )
    shares = [float(one.get_attribute("data-share")) for one in page.locator("#patch-maps .pruned canvas").all()]
    assert shares == pytest.approx([sum(scan) for scan in read["reads"]], abs=1e-9)
    reach = float(page.locator("#patch-maps .pruned p").get_attribute("data-reach"))
    assert reach == pytest.approx(sum(scan[patch] for scan in read["reach"]), abs=1e-9)


def test_the_keyboard_chooses_a_patch_and_other_models_answer(open_page):
    page = open_page(viewport=PHONE, color_scheme="dark")
    page.locator("#model").select_option("plain_mamba_micro")
    page.locator("#code-python", has_text="plain_mamba_micro").wait_for()
    wait(page)
    before = page.locator("#patch-text").inner_text()
    page.locator("#side-dense canvas").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.locator("#patch-text", has_text="row 9, column 9").wait_for()
    assert page.locator("#patch-text").inner_text() != before
    assert page.locator("#line-scan option").count() == 4
    width = page.evaluate("() => document.documentElement.scrollWidth")
    assert width <= PHONE["width"]
    wait(page)


@pytest.mark.parametrize(("name", "least"), [("mask_rcnn", 1), ("upernet", 2)])
def test_a_detector_and_a_segmenter_show_what_they_find(open_page, ask, name, least):
    page = open_page()
    page.locator("#model").select_option(f"{name}:plain_mamba_micro")
    page.locator("#code-python", has_text=f"skimba.{name}").wait_for()
    wait(page)
    for side, asked in {"dense": {"method": "dense"}, "pruned": {"method": "hold", "share": 0.7}}.items():
        _, found = ask("answer", model=f"{name}:plain_mamba_micro", picture="example:3", side=asked)
        assert shown(page, side) == [(one["number"], pytest.approx(one["probability"])) for one in found["classes"]]
        assert len(found["classes"]) >= least
        image = page.locator(f"#side-{side} .found")
        assert image.evaluate("image => image.complete && image.naturalWidth") == 640
        assert image.get_attribute("alt").endswith(", ".join(one["name"] for one in found["classes"]))
        assert float(page.locator(f"#side-{side} .gflops").inner_text()) == pytest.approx(
            found["gflops"]["exact"], rel=5e-3
        )
        assert float(page.locator(f"#side-{side} .ms").inner_text()) > 0
    assert not page.locator("#patch").is_visible()
    page.locator("#model").select_option("vim_micro")
    page.locator("#code-python", has_text="vim_micro").wait_for()
    wait(page)
    assert page.locator("#patch").is_visible()
    assert not page.locator("#side-dense .found").is_visible()


@pytest.mark.slow
def test_a_clip_is_shown_frame_by_frame(open_page, ask):
    page = open_page()
    assert not page.locator("#frame").is_visible()
    page.locator("#model").select_option("videomamba_micro")
    page.locator("#code-python", has_text="videomamba_micro").wait_for()
    wait(page)
    pruned = {"method": "hold", "share": 0.7}
    _, found = ask("answer", model="videomamba_micro", picture="example:3", side=pruned)
    assert shown(page, "pruned") == [(one["number"], pytest.approx(one["probability"])) for one in found["classes"]]
    pictures = set()
    for frame in range(1, 9):
        page.locator("#frame").fill(str(frame))
        page.locator("#frame-value", has_text=f"{frame} of 8").wait_for()
        pictures.add(page.locator("#side-pruned canvas").evaluate("canvas => canvas.toDataURL()"))
    assert len(pictures) == 8
    home = found["stages"][-1]["home"]
    patch = next(p for p, owner in enumerate(home) if p // 36 != owner // 36)  # merged into another frame
    frame, row, column = patch // 36, patch // 6 % 6, patch % 6
    owner = f"frame {home[patch] // 36 + 1}, row {home[patch] // 6 % 6 + 1}, column {home[patch] % 6 + 1}"
    page.locator("#block").fill("8")
    page.locator("#frame").fill(str(frame + 1))
    box = page.locator("#side-pruned canvas").bounding_box()
    at = {"x": (column + 0.5) * box["width"] / 6, "y": (row + 0.5) * box["height"] / 6}
    page.locator("#side-pruned canvas").click(position=at)
    page.locator("#patch-text", has_text=f"frame {frame + 1}, row {row + 1}, column {column + 1}").wait_for()
    wanted = f"Pruned: merged into {owner}, which stands for {home.count(home[patch])}"
    assert wanted in page.locator("#patch-text").inner_text()
    wait(page)
    page.locator("#model").select_option("vim_micro")
    page.locator("#code-python", has_text="vim_micro").wait_for()
    wait(page)
    assert not page.locator("#frame").is_visible()


def test_what_cannot_be_done_is_said_on_its_side(open_page):
    page = open_page()
    page.locator("#rival-method").select_option("evit")
    page.locator("#rival-align").select_option("hold")
    page.locator("#side-rival .error", has_text="nothing can be aligned").wait_for()
    assert len(shown(page, "pruned")) == 5
    wait(page)


def test_a_text_file_gets_a_sentence(open_page):
    page = open_page()
    page.locator("#file").set_input_files({"name": "a.jpg", "mimeType": "image/jpeg", "buffer": b"no photo at all"})
    page.locator("#upload-error", has_text="cannot be read as an image").wait_for()
    assert len(shown(page, "dense")) == 5


def test_a_measurement_shows_its_progress_and_can_be_cancelled(open_page):
    page = open_page()
    page.locator("#curve-images").fill("20")
    page.locator("#curve-start").click()
    page.locator("#curve-canvas[aria-label*='hold 0.8:']").wait_for()
    page.locator("#curve-cancel").click()
    page.locator("#curve-text", has_text="Cancelled. 20 images. hold 1: ").wait_for()


@pytest.mark.slow
def test_a_busy_server_is_asked_again_until_everything_is_shown(browser):
    """One question at a time is taken: of the page's first questions and ten small pictures most are turned away at first."""
    explorer, turned_away = Explorer({"vim_micro": named_offer("vim_micro")}, Worker(most_waiting=1)), []
    with ExplorerServer(explorer) as busy:
        threading.Thread(target=busy.serve_forever, daemon=True).start()
        page = browser.new_page(viewport=WIDE)
        page.on("response", lambda answer: answer.status == 503 and turned_away.append(answer.url))
        page.goto(busy.url)
        wait(page)
        pictures = page.locator("#examples img").all()
        assert [picture.evaluate("image => image.naturalWidth") for picture in pictures] == [28] * 10
        assert all(len(shown(page, side)) == 5 for side in ("dense", "pruned", "rival"))
        page.close()
        busy.shutdown()
    assert any("/api/thumbnail" in url for url in turned_away)
