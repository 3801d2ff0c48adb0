"""A Chromium for tests of the page, and what is measured in it."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

# Of each visible text its contrast with the ground that it stands on, where that is less than 4.5; of lines, bars and the edges of
# controls less than 3. A colour is read back from a canvas, whatever it is written in.
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = (part) => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4;
  const light = (colour) => [.2126, .7152, .0722].reduce((sum, own, place) => sum + own * linear(rgba(colour)[place] / 255), 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (rgba(colour)[3] === 255) return colour;
    }
    return "white";
  };
  const contrast = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((x, y) => x - y);
    return (high + .05) / (low + .05);
  };
  const shown = (node) => node.getClientRects().length > 0;
  const wrong = [], seen = {texts: 0, lines: 0};
  const check = (name, node, colour, on, least) => {
    const found = contrast(colour, on);
    if (found < least) wrong.push(`${name} ${node.tagName}.${node.getAttribute("class")} ${found.toFixed(2)}`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !shown(node) || node.closest("svg, script, noscript, template")) continue;
    seen.texts += 1;
    check(walker.currentNode.data, node, getComputedStyle(node).color, ground(node), 4.5);
  }
  const of = (names, read, least, on = ground) => [...document.querySelectorAll(names)].filter(shown).forEach((node) => {
    seen.lines += 1;
    check(names, node, read(getComputedStyle(node)), on(node), least);
  });
  of("svg text", (style) => style.fill, 4.5);
  of("textarea, input:not([type=checkbox], [type=range])", (style) => style.color, 4.5);
  of("svg polyline, .swatch path, svg .threshold, svg .exit, svg .axis", (style) => style.stroke, 3);
  of(".meter .fill, .meter .limit, .bar", (style) => style.backgroundColor, 3, (node) => ground(node.parentElement));
  of("textarea, button, .switch input, .scale", (style) => style.borderTopColor, 3, (node) => ground(node.parentElement));
  return [wrong, seen];
}"""
# Controls whose height or width is less than a finger needs. A switch is pressed by its label.
SMALL = """() => [...document.querySelectorAll("button, textarea, summary, label.switch, input:not(.switch input)")]
  .filter((node) => node.getClientRects().length && Math.min(node.offsetHeight, node.offsetWidth) < 40)
  .map((node) => `${node.tagName}#${node.id} ${node.offsetWidth}x${node.offsetHeight}`)"""
# Controls and regions without a name, and meters without values.
UNNAMED = """() => [...document.querySelectorAll("button, textarea, input, [role=region], [role=meter], article, svg[role=img]")]
  .filter((node) => node.getClientRects().length
    && !(node.labels?.[0]?.textContent.trim() || node.getAttribute("aria-label") || node.textContent.trim())
    || node.role === "meter" && !["min", "max", "now", "text"].every((name) => node.hasAttribute(`aria-value${name}`)))
  .map((node) => `${node.tagName}#${node.id}`)"""


def chromium() -> str | None:
    """The program that is named in CHROMIUM, or is on the path."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Skips where Playwright or a Chromium is missing."""
    api = pytest.importorskip("playwright.sync_api")
    program = chromium()
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium, or name one in CHROMIUM")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@contextlib.contextmanager
def page_at(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """The page at an address; `page.asked` are the bodies that it has posted. Fails on a request to another host, on what the page
    logs, and on its errors. options: of the browser's context."""
    context = browser.new_context(**options)
    context.set_default_timeout(60_000)
    page = context.new_page()
    elsewhere, said, page.asked = [], [], []

    def requested(request: Any) -> None:
        if not request.url.startswith((f"{address}/", "data:")):
            elsewhere.append(request.url)
        if request.method == "POST":
            page.asked.append(request.post_data_json)

    context.on("request", requested)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda line: said.append(line.text))
    page.goto(address)
    yield page
    context.close()
    assert not elsewhere
    assert not [line for line in said if not line.startswith("Failed to load resource")]


def ended(page: Any) -> str:
    """What the page says once nothing is asked any more."""
    page.wait_for_selector("#stop", state="hidden")
    return page.inner_text("#status")
