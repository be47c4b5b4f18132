"""Takes the pictures of `elias-idx explore` in docs/explore.md.

    python benchmarks/explore_picture.py MODEL "a text" docs/explore.png docs/explore-clusters.png

Needs the extra `integration` and Chromium.
"""

from __future__ import annotations

import shutil
import sys

from playwright.sync_api import sync_playwright

from elias_idx.explore.page import serve
from elias_idx.model import load_single


def take(model: str, text: str, texts_path: str, clusters_path: str) -> None:
    """Searches for a text, clicks its best label and then that one's cluster, and takes a picture of each."""
    blocks, address = serve(load_single(model))
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or playwright.chromium.executable_path
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(address)
        page.locator("#text textarea").fill(text)
        page.locator("#find").click()
        page.locator("#found .ei-row").first.click()
        page.locator("#why h3").first.wait_for()
        page.screenshot(path=texts_path, full_page=True)
        page.locator("#why [data-cluster]").first.click()
        page.locator("#shown h3").first.wait_for()
        page.screenshot(path=clusters_path, full_page=True)
        browser.close()
    blocks.close()


if __name__ == "__main__":
    take(*sys.argv[1:])
