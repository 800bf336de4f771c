"""Every page of the built book as a reader without a network meets it: wide, on a phone, in the dark, by ear."""

import re
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import numpy as np
import pytest
from bs4 import BeautifulSoup
from conftest import HTML, SCREENS
from skimage import io

import vendor

PAGES = sorted(
    str(path.relative_to(HTML))
    for path in HTML.rglob("*.html")
    if path.relative_to(HTML).parts[0] not in ("_static", "_modules")
)
VIEWS = {
    "wide": {"viewport": {"width": 1400, "height": 900}},
    "phone": {"viewport": {"width": 400, "height": 800}},
    "dark": {"viewport": {"width": 1400, "height": 900}, "color_scheme": "dark"},
}
FAULTS = """async () => {
  const found = await axe.run(document, {resultTypes: ["violations"]});
  return found.violations.filter(each => ["serious", "critical"].includes(each.impact))
    .map(each => `${each.id}: ${each.nodes.slice(0, 3).map(node => node.html.slice(0, 150)).join(" | ")}`);
}"""
IMAGES = """() => [...document.querySelectorAll("main img, article img")].map(image => ({
  source: image.getAttribute("src") || "", alt: image.getAttribute("alt"), width: image.naturalWidth,
  widget: Boolean(image.closest(".jupyter-widgets")) }))"""


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("view", VIEWS)
def test_a_page_is_whole_and_readable(tab, page, view):
    shown = tab(**VIEWS[view])
    opened = shown.open(page)
    SCREENS.mkdir(parents=True, exist_ok=True)
    opened.screenshot(path=SCREENS / f"{page.removesuffix('.html').replace('/', '-')}-{view}.png", full_page=True)
    assert not shown.faults

    for image in opened.evaluate(IMAGES):
        assert image["width"] > 0, f"{image['source']} does not show"
        if not image["widget"]:
            assert image["alt"] and image["alt"] != image["source"], f"{image['source']} has no words"
    formulas = opened.locator(".math.notranslate")
    assert opened.locator("mjx-container svg").count() >= formulas.count()
    assert opened.locator("mjx-merror, .MathJax_Error").count() == 0
    assert "| —" not in opened.locator("main").inner_text(), "a table stands there as text"

    if view == "phone":
        assert opened.evaluate("document.documentElement.scrollWidth") <= 400
    opened.add_script_tag(path=vendor.script("axe.js"))
    assert opened.evaluate(FAULTS) == []


def test_no_link_is_broken():
    seen, broken = {}, []

    def soup(path):
        if path not in seen:
            seen[path] = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        return seen[path]

    for page in PAGES:
        for link in soup(HTML / page).select("a[href], img[src], script[src], link[href]"):
            target = link.get("href") or link.get("src")
            if urlparse(target).scheme in ("http", "https", "mailto", "data") or target in ("", "#"):
                continue
            place, fragment = urldefrag(urljoin(page, target))
            path = HTML / unquote(urlparse(place).path)
            if not path.is_file():
                broken.append(f"{page} -> {target}: no such file")
            elif fragment and path.suffix == ".html" and not fragment.startswith(":~:"):
                there = soup(path)
                if not (there.find(id=unquote(fragment)) or there.find(attrs={"name": unquote(fragment)})):
                    broken.append(f"{page} -> {target}: no such place on the page")
    assert not broken


def test_no_figure_is_one_colour():
    figures = sorted((HTML / "_images").glob("*.png"))
    assert figures
    assert [path.name for path in figures if np.std(io.imread(path)[..., :3]) < 1] == []


def test_the_way_through_the_book_leads_past_every_page(tab):
    shown, way = tab(), []
    page = shown.open("index.html")
    while True:
        way.append(urlparse(page.url).path.lstrip("/"))
        onward = page.locator("a.right-next")
        if not onward.count():
            break
        onward.first.click()
        page.wait_for_load_state("load")
        assert len(way) <= len(PAGES)
    assert set(PAGES) - set(way) == {"genindex.html", "search.html"}


@pytest.mark.parametrize(("words", "page"), [("inflation", "papers"), ("varicosity", "glossary"), ("hd95", "notation")])
def test_search_finds_what_is_there(tab, words, page):
    shown = tab()
    opened = shown.open("index.html")
    opened.keyboard.press("Control+k")
    opened.locator("input[type=search]:visible").first.fill(words)
    opened.keyboard.press("Enter")
    opened.wait_for_selector(f"#search-results li a[href*='{page}']", timeout=60_000)  # they come one by one
    assert not shown.faults


def test_stored_widgets_are_drawn(tab):
    with_widgets = [page for page in PAGES if "widget-state+json" in (HTML / page).read_text(encoding="utf-8")]
    for page in with_widgets:
        shown = tab()
        opened = shown.open(page)
        opened.wait_for_selector(".jupyter-widgets", timeout=60_000)
        assert not shown.faults
    if not with_widgets:
        pytest.skip("no page holds a widget: the notebooks are not executed (make book)")


def test_every_public_name_has_its_place():
    import neurokd

    anchors = {
        found
        for path in (HTML / "reference").glob("*.html")
        for found in re.findall(r'id="neurokd\.(\w+)"', path.read_text(encoding="utf-8"))
    }
    rooms = {"data", "models", "inference", "evaluation", "training", "viz"}
    assert set(neurokd.__all__) - rooms <= anchors
