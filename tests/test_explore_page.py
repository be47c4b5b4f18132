"""The page of `elias-idx explore` in a real browser: Chromium, which Debian has, driven by Playwright."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from elias_idx.data import TrainingSet
from elias_idx.explore.explorer import NUM_LABELS
from elias_idx.train import train_model
from helpers_training import TINY, topic_texts

pytestmark = pytest.mark.integration

EVIL = "<img src=x onerror=\"document.title='owned'\">${document.title='owned'}{{value}}"
# Names of labels that would run something if they were shown as HTML, as an attribute, a template or Markdown.
HOSTILE = [
    EVIL,
    "<script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "' autofocus onfocus='alert(1)",
    "</span></button><iframe src='javascript:alert(1)'></iframe>",
    "[link](javascript:alert(1)) ![x](x)",
    "{{7*7}}${7*7}<%= 7*7 %>",
    "&lt;img src=x onerror=alert(1)&gt;",
    "\x1b]0;owned\x07\u202e\u2028<b>bold</b>",
]
TEXTS, LABELS = topic_texts(num_topics=12, per_topic=8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "<script>alert(1)<script>"
    topics = {f"t{number}": name for number, name in enumerate(HOSTILE)}
    # One topic without a hostile name is searched for by name.
    topics = {topic: name for topic, name in topics.items() if topic != "t5"} | {"t10": HOSTILE[5]}
    evil = [[topics.get(name, name) for name in row] for row in LABELS]
    return train_model(TrainingSet(TEXTS * 4, evil * 4), path, replace(TINY, preset="full", num_candidates=10))


@pytest.fixture(scope="module")
def address(model):
    """The address of a served page."""
    pytest.importorskip("gradio", reason="needs Gradio, which the extra `integration` brings")
    command = [sys.executable, "-m", "elias_idx", "explore", str(model.path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as server:
        yield next(line for line in server.stderr if " shows " in line).split()[0]
        server.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            server.communicate(timeout=20)
        server.kill()


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs Playwright, which the extra `integration` brings")
    # Playwright's own browser is another download, which `playwright install chromium` makes.
    with api.sync_playwright() as playwright:
        path = shutil.which("chromium") or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("needs Chromium: install Debian's package `chromium`, or run `playwright install chromium`")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """The open page; a request to elsewhere, an error or a dialog on it fails the test."""
    page = browser.new_page()
    requests, errors = [], []
    page.on("dialog", lambda dialog: (errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    yield page
    page.close()
    assert errors == []
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []


def names(page):
    return page.locator("#found .ei-name").all_text_contents()


def search(page, text):
    page.locator("#text textarea").fill(text)
    page.locator("#find").click()
    page.locator("#found .ei-row").first.wait_for()


def test_labels_of_a_text_and_why(page, model):
    search(page, TEXTS[20])
    (expected,), (scores,) = model.predict([TEXTS[20]], NUM_LABELS)
    assert names(page) == expected
    assert page.locator("#found .ei-number").first.text_content() == f"{scores[0]:.3f}"
    page.locator("#found .ei-row").nth(1).click()
    why = page.locator("#why .ei")
    why.wait_for()
    assert why.locator("h3").first.text_content() == expected[1]
    (explanation,) = model.explain(TEXTS[20], expected[1:2])
    assert f"Sum {explanation.fused.logit:+.3f}" in why.text_content()

    # Another label of its cluster is explained in turn.
    why.locator("[data-label]").first.click()
    page.wait_for_function("name => document.querySelector('#why h3').textContent !== name", arg=expected[1])


def test_from_a_path_to_its_cluster_and_on(page, model):
    search(page, TEXTS[20])
    page.locator("#found .ei-row").first.click()
    link = page.locator("#why [data-cluster]").first
    link.wait_for()
    number = link.get_attribute("data-cluster")
    link.click()
    shown = page.locator("#shown h3").first
    shown.wait_for()
    assert shown.text_content() == f"Cluster {number}"
    names = page.locator("#shown [data-label]").all_text_contents()
    assert len(names) == min(25, len(model.index.labels(int(number)).labels))
    page.locator("#shown [data-label]").first.click()
    page.locator("#shown").get_by_text("hangs on").wait_for()
    assert shown.text_content() == names[0]


def test_clusters_by_number_and_labels_by_name(page):
    page.get_by_role("tab", name="Clusters").click()
    page.locator("#largest [data-cluster]").first.wait_for()
    page.locator("#number input").fill("3")
    page.locator("#number input").press("Enter")
    page.get_by_text("Cluster 3", exact=True).wait_for()
    page.locator("#name textarea, #name input").fill("t5")
    page.locator("#name textarea, #name input").press("Enter")
    page.locator("#shown h3", has_text="t5").wait_for()
    page.locator("#spread [data-label]").first.click()
    page.wait_for_function("() => document.querySelector('#shown h3').textContent !== 't5'")


def test_names_and_texts_run_nothing(page):
    search(page, f"{TEXTS[0]} {EVIL}")
    assert EVIL in names(page)
    page.locator("#found .ei-row", has_text="document.title").click()
    page.locator("#why h3").first.wait_for()
    assert page.locator("#why h3").first.text_content() == EVIL
    page.get_by_role("tab", name="Clusters").click()
    page.locator("#name textarea, #name input").fill(f"{EVIL} not")
    page.locator("#name textarea, #name input").press("Enter")
    page.get_by_text("No label is called").wait_for()
    assert EVIL in page.locator("#shown").text_content()
    assert page.title() == "elias_idx"
    assert page.locator("#found img, #why img, #shown img").count() == 0


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_names_are_shown_as_they_are(page, number):
    name, text = HOSTILE[number], TEXTS[8 * (10 if number == 5 else number)]
    search(page, f"{text} {name}")
    row = names(page).index(name)
    page.locator("#found .ei-row").nth(row).click()
    page.wait_for_function("name => document.querySelector('#why h3')?.textContent === name", arg=name)
    page.locator("#why [data-cluster]").first.click()
    page.locator("#shown h3").first.wait_for()
    page.locator("#name textarea, #name input").fill(name)
    page.locator("#name textarea, #name input").press("Enter")
    page.wait_for_function("name => document.querySelector('#shown h3')?.textContent === name", arg=name)
    assert page.title() == "elias_idx"
    inside = ", ".join(
        f"{place} {tag}"
        for place in ("#found", "#why", "#shown", "#largest", "#spread")
        for tag in ("img", "svg", "iframe", "script", "a", "b:not(p > b)", "[onfocus]", "[onload]", "[onerror]")
    )
    assert page.locator(inside).count() == 0


def test_only_this_machine_reaches_the_page(address):
    port = int(address.rstrip("/").rpartition(":")[2])
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    # All of 127/8 is this machine on Linux, but another address than the one that is listened at.
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for other in others | ({"127.0.0.2"} if sys.platform == "linux" else set()):
        with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
            socket.create_connection((other, port), timeout=5).close()


def test_the_page_gives_no_files_away(address, model):
    for path in ("/etc/passwd", model.path / "model.json", Path("pyproject.toml").absolute()):
        for route in ("gradio_api/file=", "file=", "gradio_api/file/"):
            with pytest.raises(HTTPError) as refusal:
                urlopen(f"{address.rstrip('/')}/{route}{path}", timeout=10)
            with refusal.value as answer:
                assert answer.code in (403, 404)
