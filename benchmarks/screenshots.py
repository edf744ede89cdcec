"""Screenshots of the explorer for docs/: ``python -m benchmarks.screenshots``, on a quiet machine, since they show times.

Needs Debian's chromium and playwright.
"""

from __future__ import annotations

import argparse
import io
import shutil
import threading
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from skimba.explorer import Explorer, ExplorerServer, embedded_offers

# name, width, height, colours, model
SHOTS = (("wide", 1440, 900, "light", "vim_micro"), ("phone", 390, 844, "dark", "plain_mamba_micro"))
COLOURS = 128  # of the PNG's palette
READY = "main[aria-busy=false]"


def shoot(browser: Browser, url: str, width: int, height: int, dark: bool, model: str) -> Image.Image:
    """The page with a model's first answers."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
    page.goto(url)
    page.wait_for_selector(READY)
    page.locator("#model").select_option(model)
    page.locator("#code-python", has_text=f'"{model}"').wait_for()
    page.wait_for_selector(READY)
    page.locator("#status", has_text="Ready").wait_for()
    found = Image.open(io.BytesIO(page.screenshot()))
    page.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Screenshots of the explorer.")
    parser.add_argument("--folder", type=Path, default=Path("docs"))
    folder = parser.parse_args().folder
    with ExplorerServer(Explorer(embedded_offers())) as server, sync_playwright() as running:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, width, height, colours, model in SHOTS:
            picture = shoot(browser, server.url, width, height, colours == "dark", model)
            picture.convert("RGB").quantize(COLOURS).save(folder / f"explorer_{name}.png", optimize=True)
        browser.close()
        server.shutdown()


if __name__ == "__main__":
    main()
