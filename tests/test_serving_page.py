"""The page at /: its files, and in a Chromium what a person sees of it with the bundled model."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from browser_case import CONTRASTS, SMALL, UNNAMED, browser, ended, page_at
from serving_case import CHAT

from specexit_jax.serving.static import FOLDER, page_routes

ROOT = Path(__file__).resolve().parent.parent
FILES = {path.name: path.read_text() for path in FOLDER.iterdir()}
SVG = "http://www.w3.org/2000/svg"


@pytest.fixture(scope="module")
def files():
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    return TestClient(Starlette(routes=page_routes()))


def test_the_page_and_all_that_it_names_is_served(files):
    page = files.get("/")
    assert page.text == FILES["index.html"] and page.headers["content-type"].startswith("text/html")
    named = set(re.findall(r'(?:href|src)="page/([^"]+)"', page.text))
    imported = {name for name, text in FILES.items() for name in re.findall(r'from "\./([^"]+)"', text)}
    assert named | imported | {"index.html"} == set(FILES)
    for name in named | imported:
        told = files.get(f"/page/{name}")
        kind = {"js": "text/javascript", "css": "text/css"}[name.rpartition(".")[2]]
        assert told.text == FILES[name] and told.headers["content-type"].startswith(kind)
        for response in (page, told):
            policy = response.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
            assert response.headers["x-content-type-options"] == "nosniff"


def test_nothing_else_is_served(files):
    for name in (
        "",
        "none.js",
        "..%2fapp.py",
        "%2e%2e/app.py",
        "..%2f..%2fassets/embedded/policy.json",
        ".",
        "page.css%00",
        "%00.css",
    ):
        assert files.get(f"/page/{name}").status_code == 404, name
    assert files.post("/").status_code == 405


def test_the_files_ask_nobody_else_and_make_no_markup_of_texts():
    assert set(FILES) >= {"index.html", "page.css", "page.js"}
    for name, text in FILES.items():
        assert not re.findall(
            r"(?:https?:)?//[\w.-]+\.\w+", text.replace(SVG, "").replace(SVG.replace('"', "'"), "")
        ), name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|@import|url\(", text
        ), name
        assert not re.search(r"""\sstyle=["']|\son\w+=["']|<script>|<style""", text), name  # what the policy forbids
        assert max(map(len, text.splitlines())) <= 132 and len(text.splitlines()) < 200, name


# What a person sees, with the bundled model.

slow = pytest.mark.slow
QUESTION = "Find the Greatest Common Divisor (GCD) of these numbers: 88, 40. Give only the GCD as your final answer."


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def address(chromium):
    """That of the bundled model."""
    command = [sys.executable, "-m", "launch.serve", "--port=0", "--slots=2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT) as process:
        try:
            said = []
            for line in process.stdout:
                said.append(line)
                if found := re.search(r"ready at (http://\S+)", line):
                    break
            else:
                pytest.fail("".join(said))
            yield found[1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@pytest.fixture
def page(chromium, address):
    with page_at(chromium, address, viewport={"width": 1200, "height": 800}) as page:
        page.wait_for_selector("#examples button")
        yield page


def whole(address: str, **fields) -> dict:
    """The server's answer to the question, not streamed."""
    body = json.dumps({"messages": [{"role": "user", "content": QUESTION}], "seed": 0} | fields).encode()
    request = urllib.request.Request(f"{address}{CHAT}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)["choices"][0]


def total(choice: dict) -> int:
    return choice["specexit"]["tokens"]["thinking"] + choice["specexit"]["tokens"]["answer"]


def model_of(address: str) -> dict:
    with urllib.request.urlopen(f"{address}/v1/models") as response:
        return json.load(response)["data"][0]["specexit"]


@slow
def test_an_example_streams_its_thinking_then_the_answer(page, address):
    told = whole(address)
    message, own = told["message"], told["specexit"]
    page.fill("#seed", "0")
    page.get_by_role("button", name="gcd").click()
    page.wait_for_selector(".thinking .fresh")
    seen = page.inner_text(".thinking")
    assert message["reasoning"].startswith(seen.strip()) and len(seen) < len(message["reasoning"])
    assert not page.inner_text(".answer") and not page.is_visible(".stopped")
    assert page.inner_text("#status") == "Thinking …" and page.is_visible("#stop")
    fresh = page.evaluate("getComputedStyle(document.querySelector('.thinking .fresh')).animationName")
    assert fresh == "dim"
    exit = own["exit"]
    assert ended(page).startswith(f"Stopped after {exit['token']} tokens of thinking") and exit["token"] > 9
    assert page.inner_text("#status").endswith(f"Answer: {message['content']}")
    assert page.evaluate("document.querySelector('.thinking').textContent") == message["reasoning"]
    assert page.inner_text(".answer") == message["content"]
    saved = f": about {own['unstopped'] - total(told)} tokens saved" if own["unstopped"] else ""
    assert page.inner_text(".stopped") == f"Stopped here, at token {exit['token']}{saved}"
    assert f"{total(told)} tokens: " in page.inner_text(".facts") and "seed 0" in page.inner_text(".facts")
    problems = f"{own['policy']['problems']:,} problems of the {own['policy']['split']} split"
    assert problems in page.inner_text(".facts") and "is covered" in page.inner_text(".facts")


@slow
def test_meters_and_the_chart_show_what_the_policy_read(page, address):
    own = whole(address)["specexit"]
    offered = model_of(address)
    page.fill("#seed", "0")
    page.fill("#question", QUESTION)
    page.get_by_role("button", name="Ask", exact=True).click()
    ended(page)
    meters = page.get_by_role("meter").all()
    assert [meter.get_attribute("aria-label") for meter in meters] == list(offered["signals"])
    for meter, (name, signal_) in zip(meters, offered["signals"].items(), strict=True):
        value, limit = own["exit"]["signals"][name], own["policy"]["thresholds"].get(name)
        assert float(meter.get_attribute("aria-valuenow")) == pytest.approx(value, abs=1e-3)
        assert float(meter.get_attribute("aria-valuemax")) == signal_["full"]
        assert meter.get_attribute("title") == signal_["meaning"]
        drawn = meter.locator(".fill").bounding_box()["width"] / meter.bounding_box()["width"]
        assert drawn == pytest.approx(min(value / signal_["full"], 1), abs=0.02)
        assert meter.locator(".limit").count() == (limit is not None)
        assert ("passes ≥" in meter.get_attribute("aria-valuetext")) == (limit is not None)
    small = page.locator(".meter.small").count()
    assert small == len([name for name in list(offered["signals"])[3:] if name not in own["policy"]["thresholds"]])
    chart = page.locator("figure svg")
    left, right = (float(chart.locator(".threshold").first.get_attribute(name)) for name in ("x1", "x2"))
    place = float(chart.locator(".exit").get_attribute("x1"))
    longest = max(48, own["exit"]["token"])
    assert (place - left) / (right - left) == pytest.approx(own["exit"]["token"] / longest, abs=1e-3)
    assert chart.locator(".boundary").count() == own["exit"]["boundary"]
    lines = [line.get_attribute("points").split() for line in chart.locator("polyline").all()]
    assert len(lines) == len(offered["signals"]) and len({len(line) for line in lines}) == 1 and len(lines[0]) > 2
    assert float(lines[0][-1].split(",")[0]) == pytest.approx(place, abs=0.1)
    for name, limit in own["policy"]["thresholds"].items():
        assert f"{name} ≥ {limit:.3f}" in chart.locator(".limit").all_text_contents()
    summary = chart.get_attribute("aria-label")
    assert f"Exit at token {own['exit']['token']}." in summary and f"Boundaries: {own['exit']['boundary']}." in summary
    page.get_by_text("The signals as a table").click()
    rows = page.locator("table tr").all_inner_texts()
    assert len(rows) == len(lines[0]) + 1
    assert rows[-1].split() == [
        str(own["exit"]["token"]),
        *(_reading(own["exit"]["signals"][name], signal_) for name, signal_ in offered["signals"].items()),
    ]


def _reading(value: float, signal_: dict) -> str:
    return f"{value:.0f}" if signal_["full"] > 1 else f"{value:.3f}"


@slow
def test_the_same_seed_without_exits_side_by_side(page, address):
    left, right = whole(address), whole(address, specexit={"method": "eagle3"})
    page.fill("#seed", "0")
    page.get_by_role("switch", name="side by side").check()
    page.get_by_role("switch", name="Slow motion").uncheck()
    page.get_by_role("button", name="gcd").click()
    said = ended(page)
    ours, plain = page.asked
    assert ours["seed"] == plain["seed"] == 0 and ours["messages"] == plain["messages"]
    assert (ours["specexit"]["method"], plain["specexit"]) == ("specexit", {"method": "eagle3"})
    first, second = page.locator(".run").all()
    kept = left["message"]["reasoning"]
    assert first.locator(".thinking").text_content() == kept
    mark = second.locator(".thinking .mark").text_content()
    assert second.locator(".thinking").text_content() == kept + mark + right["message"]["reasoning"][len(kept) :]
    assert second.locator(".spared").text_content() == right["message"]["reasoning"][len(kept) :]
    saved = total(right) - total(left)
    assert saved > 50
    assert (
        first.locator(".stopped").inner_text()
        == f"Stopped here, at token {left['specexit']['exit']['token']}: {saved} tokens saved"
    )
    assert said.startswith(f"{total(left)} instead of {total(right)} tokens: {100 * saved / total(right):.2g} % saved.")
    assert ("are the same" in said) == (left["message"]["content"] == right["message"]["content"])
    assert not second.locator(".meter").count() and second.locator(".signals").is_hidden()
    one, other = first.bounding_box(), second.bounding_box()
    assert one["y"] == other["y"] and one["x"] + one["width"] <= other["x"]
    bars = [bar.bounding_box()["width"] for bar in first.locator(".bar").all()]
    assert bars[0] / bars[1] == pytest.approx(total(left) / total(right), abs=0.01)
    page.set_viewport_size({"width": 360, "height": 800})
    assert first.bounding_box()["y"] + first.bounding_box()["height"] <= second.bounding_box()["y"]


@slow
def test_a_drawn_seed_is_told_and_gives_the_same_again(page, address):
    page.get_by_role("switch", name="Slow motion").uncheck()
    page.fill("#question", QUESTION)
    page.press("#question", "Enter")
    ended(page)
    (body,) = page.asked
    assert 0 <= body["seed"] < 2**31 and f"seed {body['seed']}" in page.inner_text(".facts")
    assert page.locator(".thinking").text_content() == whole(address, seed=body["seed"])["message"]["reasoning"]
    page.press("#question", "Enter")
    ended(page)
    assert page.asked[1]["seed"] != body["seed"] and page.locator(".run").count() == 1


@slow
def test_the_keyboard_is_enough(page):
    """From the address line on: question, examples, switches, stop and the table, each with a focus that can be seen."""

    def focused() -> dict:
        found = page.evaluate(
            """() => { const node = document.activeElement, {outlineWidth, outlineStyle} = getComputedStyle(node);
            return {id: node.id, text: node.textContent.trim(), ring: parseFloat(outlineWidth), style: outlineStyle} }"""
        )
        assert found["ring"] >= 2 and found["style"] == "solid", found
        return found

    def tab_to(**wanted) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            found = focused()
            if wanted.items() <= found.items():
                return
        raise AssertionError(wanted)

    page.keyboard.press("Tab")
    assert focused()["id"] == "question"
    page.keyboard.type("Find the GCD")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("of 88 and 40.")
    assert page.input_value("#question") == "Find the GCD\nof 88 and 40." and not page.asked
    tab_to(id="beside")
    page.keyboard.press("Space")
    assert page.is_checked("#beside")
    page.keyboard.press("Shift+Tab")
    while page.evaluate("document.activeElement.id") != "go":
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert focused()["id"] == "stop" and page.inner_text("#status") == "Thinking …"
    page.keyboard.press("Enter")
    assert ended(page) == "Stopped by you." and focused()["id"] == "go"
    tab_to(text="gcd")
    page.keyboard.press("Enter")
    page.wait_for_selector(".thinking .fresh")
    page.keyboard.press("Escape")
    assert ended(page) == "Stopped by you." and page.inner_text(".thinking")
    page.uncheck("#slowly")
    page.uncheck("#beside")
    page.focus("#question")
    tab_to(text="gcd")
    page.keyboard.press("Enter")
    assert ended(page).startswith("Stopped after")
    tab_to(text="The signals as a table")
    page.keyboard.press("Enter")
    assert page.is_visible("table")


@slow
def test_it_can_be_read_and_pressed_anywhere(page):
    """Light and dark, from a small phone to a desk: contrasts, names, room for fingers, and nothing to scroll sideways."""

    def look(state: str, texts: int, lines: int) -> None:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            wrong, seen = page.evaluate(CONTRASTS)
            assert not wrong and seen["texts"] >= texts and seen["lines"] >= lines, (state, scheme, wrong, seen)
        for width in (320, 360, 768, 1200):
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_timeout(50)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (state, width)
            assert not page.evaluate(SMALL), (state, width)
        assert not page.evaluate(UNNAMED), state

    look("at first", 15, 5)
    page.uncheck("#slowly")
    page.get_by_role("button", name="gcd").click()
    ended(page)
    page.get_by_text("The signals as a table").click()
    look("after an exit", 40, 30)
    page.check("#beside")
    page.fill("#question", "w" * 300)
    page.press("#question", "Enter")
    ended(page)
    look("side by side", 40, 30)


@slow
def test_who_wants_less_motion_gets_none(chromium, address):
    with page_at(chromium, address, reduced_motion="reduce") as page:
        page.wait_for_selector("#examples button")
        assert not page.is_checked("#slowly")
        page.get_by_role("button", name="gcd").click()
        ended(page)
        assert page.locator(".fresh").count() and page.evaluate("document.getAnimations().length") == 0
        assert page.evaluate("getComputedStyle(document.querySelector('.fresh')).animationName") == "none"


@slow
def test_a_phone(chromium, address):
    options = {"viewport": {"width": 360, "height": 800}, "has_touch": True, "is_mobile": True, "color_scheme": "dark"}
    with page_at(chromium, address, **options) as page:
        page.wait_for_selector("#examples button")
        assert page.is_hidden("#keys")
        page.tap("#question")
        page.keyboard.type("Find the GCD")
        page.keyboard.press("Enter")  # the only way to begin a line
        page.keyboard.type("of 88 and 40.")
        assert page.input_value("#question").count("\n") == 1 and not page.asked
        page.tap("#go")
        page.wait_for_selector(".run")
        assert (
            page.evaluate("document.getElementById('status').getBoundingClientRect().top") < 400
        )  # it has come into view
        assert ended(page)
        assert page.evaluate("getComputedStyle(document.body).color") != "rgb(0, 0, 0)"
        assert page.evaluate("document.documentElement.scrollWidth") == 360
