"""The page in a Chromium with the tiny model: its slider of risks, keys, what goes wrong, and texts that are no markup."""

import contextlib
import http.server
import json
import threading
import time
import urllib.request
from collections.abc import Iterator

import pytest
from browser_case import browser, ended, page_at
from serving_case import CHAT, certified_folder, listening

from specexit_jax import SpecExit
from specexit_jax.serving.service import Limits

pytestmark = pytest.mark.slow
QUESTION, KEY = "Count the legs.", "sesame"
TESTED = {"harmed": 41, "problems": 6000, "split": "calibration"}


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def address(chromium, tiny, session, tmp_path_factory):
    folder = certified_folder(tiny, tmp_path_factory.mktemp("certified") / "model", session)
    model = SpecExit.load(folder / "target", folder / "draft", folder / "policy.json", draft_tokens=2)
    with listening(model, keys=(KEY,), limits=Limits(queue=3)) as address:
        yield address


@pytest.fixture
def page(chromium, address):
    """Opened with the key, at the largest risk: others take no exit."""
    with page_at(chromium, address) as page:
        page.fill("#key", KEY)
        page.press("#key", "Enter")
        assert ended(page) == "Write a question first."
        page.press("#epsilon", "End")
        page.fill("#question", QUESTION)
        page.fill("#seed", "1")
        page.uncheck("#slowly")
        yield page


def whole(address: str, epsilon: float) -> dict:
    body = {"messages": [{"role": "user", "content": QUESTION}], "seed": 1, "specexit": {"epsilon": epsilon}}
    request = urllib.request.Request(f"{address}{CHAT}", json.dumps(body).encode(), {"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)["choices"][0]


def asked(page) -> str:
    page.press("#question", "Enter")
    return ended(page)


def test_a_server_with_keys_gets_one(chromium, address):
    with page_at(chromium, address) as page:
        page.wait_for_selector("#key")
        assert page.inner_text("#status") == "This server asks for an API key: enter yours."
        assert page.evaluate("document.activeElement.id") == "key" and page.is_hidden("#risk")
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        assert ended(page) == "This API key is wrong: enter another."
        page.fill("#key", KEY)
        page.fill("#question", QUESTION)
        page.uncheck("#slowly")
        assert asked(page) == "Answer: none" and page.is_visible("#risk")
        assert page.inner_text(".stopped") == "The thinking did not end"
        page.fill("#key", "wrong")
        assert asked(page) == "This API key is wrong: enter another."
        assert "wrong" in page.get_attribute("#status", "class") and page.evaluate("document.activeElement.id") == "key"


def test_the_slider_is_the_risk_of_the_request(page, address):
    slider = page.get_by_role("slider", name="Risk that you allow")
    assert slider.get_attribute("max") == "2" and page.locator("#ends span").all_inner_texts() == ["1 %", "5 %"]
    slider.press("Home")
    assert slider.get_attribute("aria-valuetext") == page.inner_text("#allowed") == "1 %"
    asked(page)
    assert page.asked[-1]["specexit"] == {"method": "specexit", "epsilon": 0.01}
    assert page.inner_text(".run h2") == "With exits at a risk of 1 %"
    seen = []
    for key, epsilon, ratio, limit in (("ArrowRight", 0.02, 50, "progress ≥ 0.550"), ("End", 0.05, 25, None)):
        slider.press(key)
        told = page.inner_text("#certificate")
        assert slider.get_attribute("aria-valuetext") == page.inner_text("#allowed") == f"{100 * epsilon:g} %"
        assert f"At most {100 * epsilon:g} % of problems turn from right to wrong, with probability 95 %." in told
        assert "Of 10 problems of the " in told and " split 1 did." in told
        assert f"About {ratio} % of the tokens remain." in told
        assert told.endswith(f"It exits where {limit}." if limit else "It exits at the first boundary.")
        said = asked(page)
        assert page.asked[-1]["specexit"]["epsilon"] == epsilon and page.asked[-1]["seed"] == 1
        answer = whole(address, epsilon)["specexit"]
        saved = answer["unstopped"] - answer["tokens"]["thinking"] - answer["tokens"]["answer"]
        stop = f"{answer['exit']['token']}: about {saved} token{'s' * (saved != 1)} saved"
        assert page.inner_text(".stopped") == f"Stopped here, at token {stop}" and f"about {saved} token" in said
        assert f"10 problems of the {answer['policy']['split']} split" in page.inner_text(".facts")
        seen.append((page.locator(".meter .limit").count(), page.locator("svg .threshold").count()))
    assert seen == [(1, 1), (0, 0)]
    assert page.locator(".meter").count() == 3 and not page.locator(".meter.small").count()


@pytest.mark.parametrize("stops", [[], [0.01]])
def test_risks_without_a_choice(chromium, address, stops):
    """A policy without a certificate is asked for no risk; one risk needs no slider."""
    signals = {"progress": {"meaning": "share", "colour": "#2563eb", "at_least": True, "full": 1.0}}
    risks = [
        {"epsilon": one, "delta": 0.05, "tokens_ratio": None, "thresholds": {"progress": 0.5}} | TESTED for one in stops
    ]
    own = {
        "methods": ["specexit", "eagle3"],
        "default": "specexit",
        "signals": signals,
        "examples": {},
        "epsilons": risks,
    }
    with page_at(chromium, address) as page:
        page.wait_for_selector("#key")
        page.fill("#key", KEY)
        page.route("**/v1/models", lambda route: route.fulfill(json={"data": [{"id": "x", "specexit": own}]}))
        page.route(f"**{CHAT}", lambda route: route.fulfill(status=500))
        page.fill("#question", QUESTION)
        asked(page)
        assert page.asked[-1]["specexit"] == {"method": "specexit"} | ({"epsilon": 0.01} if stops else {})
        held = (
            "At most 1 % of problems turn from right to wrong, with probability 95 %. Of 6,000 problems of the calibration split "
            "41 did. It exits where progress ≥ 0.500."
        )
        assert page.inner_text("#certificate") == (held if stops else "This exit policy is not certified for any risk.")
        assert page.is_visible("#allowed") == bool(stops) and page.is_hidden("#epsilon") and page.is_hidden("#ends")


def test_a_question_that_is_too_long_is_told(page):
    page.fill("#question", "legs " * 200)
    said = asked(page)
    assert "leave no room in the context" in said and said.endswith(".") and said.count(". ") == 0
    page.fill("#question", QUESTION)
    assert asked(page).startswith("Stopped after") and "wrong" not in page.get_attribute("#status", "class")


REFUSED = [
    (429, {"Retry-After": "7"}, "The queue is full.", "The server has no room for more questions now: ask again in 7 s."),
    (503, {"Retry-After": "5"}, "The server is not warm yet.", "The server is not warm yet: ask again in 5 s."),
    (500, {}, "The engine broke down.", "The engine broke down."),
    (502, {}, None, "The server answered with status 502."),
]  # fmt: skip


@pytest.mark.parametrize(("status", "headers", "told", "said"), REFUSED, ids=[str(one[0]) for one in REFUSED])
def test_a_refusal_is_one_sentence(page, status, headers, told, said):
    body = "<p>bad gateway</p>" if told is None else json.dumps({"error": {"message": told}})
    asked(page)
    page.route(f"**{CHAT}", lambda route: route.fulfill(status=status, headers=headers, body=body))
    assert asked(page) == said and "wrong" in page.get_attribute("#status", "class")
    assert page.is_hidden("#stop")
    page.unroute(f"**{CHAT}")
    assert asked(page).startswith("Stopped after")


def chunk(own: dict, finish: str | None = None, **delta: str) -> dict:
    return {"choices": [{"index": 0, "finish_reason": finish, "specexit": own, "delta": delta}]}


POLICY = {
    "epsilon": 0.01, "delta": 0.05, "problems": 10, "harmed": 1, "split": "calibration", "thresholds": {},
    "boundaries": ["paragraph"], "covered": False, "uncovered": "its <b>temperature</b>.",
}  # fmt: skip
BEGIN = chunk({"begin": {"policy": POLICY}}, content="")


def lines(*events: dict) -> str:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events)


@contextlib.contextmanager
def another(text: str, left: threading.Event | None = None) -> Iterator[str]:
    """The address of a server that breaks off after a text; or waits until its client leaves, and sets `left`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(text.encode())
            self.wfile.flush()
            if left is None:
                time.sleep(0.3)
                return
            self.connection.settimeout(20)
            with contextlib.suppress(TimeoutError):
                self.connection.recv(1)
                left.set()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{CHAT}"
        finally:
            server.shutdown()
            thread.join()


LOST = "The connection was lost before the answer was complete: ask again."


def test_a_connection_that_is_lost(page):
    """While it streams, before it, and where a stream ends too early: what has come stays."""
    asked(page)
    begun = lines(BEGIN, chunk({}, reasoning="3*4=12."))
    with another(begun) as address:
        page.route(f"**{CHAT}", lambda route: route.continue_(url=address))
        assert asked(page) == LOST and page.inner_text(".thinking") == "3*4=12."
        page.unroute(f"**{CHAT}")
    page.route(f"**{CHAT}", lambda route: route.fulfill(body=begun))
    page.check("#slowly")
    assert asked(page) == LOST and page.inner_text(".thinking") == "3*4=12." and page.is_hidden(".stopped")
    page.unroute(f"**{CHAT}")
    page.route(
        f"**{CHAT}",
        lambda route: route.fulfill(body=begun + lines({"error": {"message": "The request took too long."}})),
    )
    assert asked(page) == "The request took too long."
    page.unroute(f"**{CHAT}")
    page.route(f"**{CHAT}", lambda route: route.abort())
    assert asked(page) == "The server cannot be reached: look whether it runs, then ask again."


@pytest.mark.parametrize("slowly", [False, True])
def test_who_stops_leaves_the_server(page, slowly):
    """Which frees the slot. What has come stays, and a new question can be asked."""
    asked(page)
    page.set_checked("#slowly", slowly)
    left = threading.Event()
    with another(lines(BEGIN, chunk({}, reasoning="3*4=12.")), left) as address:
        page.route(f"**{CHAT}", lambda route: route.continue_(url=address))
        page.press("#question", "Enter")
        page.wait_for_selector(".thinking .fresh")
        assert not left.is_set() and page.is_visible("#stop")
        page.click("#stop")
        assert ended(page) == "Stopped by you." and left.wait(10)
    assert page.inner_text(".thinking") == "3*4=12."
    page.unroute(f"**{CHAT}")
    assert asked(page).startswith("Stopped after")


def test_slow_motion_ends_at_once(page):
    """Though all has come, and most of it is not shown yet."""
    asked(page)
    page.check("#slowly")
    live = {"thinking": True, "signals": None, "boundaries": [], "exit": None}
    events = [chunk({"live": live | {"tokens": 20 * number}}, reasoning=f"{number} ") for number in range(1, 200)]
    page.route(f"**{CHAT}", lambda route: route.fulfill(body=lines(BEGIN, *events)))
    page.press("#question", "Enter")
    page.wait_for_selector(".thinking .fresh >> nth=1")
    page.click("#stop")
    page.wait_for_selector("#stop", state="hidden", timeout=5000)
    assert page.inner_text("#status") == "Stopped by you."
    before = page.inner_text(".thinking")
    page.wait_for_timeout(1200)
    assert page.inner_text(".thinking") == before and before.startswith("1 2 ") and "100" not in before


def test_a_new_question_ends_the_one_before(page):
    asked(page)
    left = threading.Event()
    with another(lines(BEGIN, chunk({}, reasoning="3*4=12.")), left) as address:
        page.route(f"**{CHAT}", lambda route: route.continue_(url=address), times=1)
        page.press("#question", "Enter")
        page.wait_for_selector(".thinking .fresh")
        assert asked(page).startswith("Stopped after") and left.wait(10)
    assert page.locator(".run").count() == 1 and "3*4=12." not in page.inner_text(".thinking")


MARKUP = "<img src=x onerror='window.harmed=1'><script>window.harmed=1</script></script><b>bold</b>&amp;"


def test_texts_are_never_markup(chromium, address):
    """Of the model, of the user, of the server: names, meanings, examples, errors."""
    signals = {MARKUP: {"meaning": MARKUP, "colour": "red;background:url(//x.example)", "at_least": True, "full": 1.0}}
    own = {
        "methods": [MARKUP], "default": MARKUP, "signals": signals, "examples": {MARKUP: MARKUP},
        "epsilons": [{"epsilon": 0.01, "delta": 0.05, "tokens_ratio": None, "thresholds": {MARKUP: 0.5}} | TESTED],
    }  # fmt: skip
    policy = POLICY | {"split": MARKUP, "uncovered": MARKUP, "boundaries": [MARKUP], "thresholds": {MARKUP: 0.5}}
    exit = {"token": 3, "boundary": 1, "signals": {MARKUP: 0.9}}
    last = {"closed": "policy", "exit": exit, "policy": policy, "tokens": {"thinking": 3, "answer": 1}, "unstopped": 9}
    last |= {"seconds": {"total": 0.1}, "tau": 1.0, "seed": 1, "signals": exit["signals"]}
    stream = lines(
        chunk({"begin": {"policy": policy}}, content=""), chunk({}, reasoning=MARKUP), chunk({}, content=MARKUP)
    )
    stream += lines(chunk(last, "stop")) + "data: [DONE]\n\n"
    with page_at(chromium, address) as page:
        page.wait_for_selector("#key")
        page.fill("#key", KEY)
        page.route("**/v1/models", lambda route: route.fulfill(json={"data": [{"id": MARKUP, "specexit": own}]}))
        page.route(f"**{CHAT}", lambda route: route.fulfill(body=stream))
        page.fill("#question", MARKUP)
        assert asked(page) == "Stopped after 3 tokens of thinking, about 5 tokens saved. The answer is complete."
        assert page.asked[-1]["messages"][0]["content"] == MARKUP
        assert (
            page.text_content(".thinking")
            == page.text_content(".answer")
            == page.text_content("#examples button")
            == MARKUP
        )
        assert MARKUP in page.text_content(".facts") and MARKUP in page.text_content("#certificate")
        page.unroute(f"**{CHAT}")
        page.route(f"**{CHAT}", lambda route: route.fulfill(status=400, json={"error": {"message": MARKUP}}))
        assert asked(page) == MARKUP
        assert page.evaluate("window.harmed") is None and not page.locator("img, b, body script").count()


def test_a_model_that_never_exits(chromium, address):
    own = {"methods": ["think", "nothink"], "default": "think", "signals": {}, "examples": {}, "epsilons": []}
    last = {"closed": "model", "exit": None, "policy": None, "tokens": {"thinking": 3, "answer": 1}, "unstopped": None}
    last |= {"seconds": {"total": 0.1}, "tau": 1.0, "seed": 1, "signals": None}
    stream = lines(chunk({"begin": {"policy": None}}, content=""), chunk({}, reasoning="3*4"), chunk({}, content="12"))
    with page_at(chromium, address) as page:
        page.wait_for_selector("#key")
        page.route("**/v1/models", lambda route: route.fulfill(json={"data": [{"id": "plain", "specexit": own}]}))
        page.route(
            f"**{CHAT}", lambda route: route.fulfill(body=stream + lines(chunk(last, "stop")) + "data: [DONE]\n\n")
        )
        page.fill("#question", QUESTION)
        assert asked(page) == "Answer: 12"
        assert page.inner_text(".stopped") == "The model ended its thinking, at token 3"
        assert page.asked[-1]["specexit"] == {"method": "think"}
        assert page.inner_text(".run h2") == "Answer"
        assert all(page.is_hidden(name) for name in ("#risk", "#besides", "#examples", ".run .signals", ".saving"))
