"""What the server refuses: a status, and an error that names the field; nothing of it reaches another request."""

import concurrent.futures
import json
import time

import pytest
from serving_case import CHAT, RAW, certified_model, chat, events_of, served

from specexit_jax.serving.service import Limits

LIMITS = Limits(queue=2, seconds=30, largest_body=60_000)


@pytest.fixture(scope="module")
def model(tiny, session, tmp_path_factory):
    return certified_model(tiny, tmp_path_factory.mktemp("certified") / "model", session)


@pytest.fixture(scope="module")
def client(model):
    with served(model, slots=1, keys=("sesame", "other"), limits=LIMITS) as client:
        client.headers["Authorization"] = "Bearer other"
        yield client


USER = {"role": "user", "content": "?"}
WRONG = [
    ({"messages": 3}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": [USER] * 1025}, "messages"),
    ({"messages": ["?"]}, "messages[0]"),
    ({"messages": [USER, {"role": "tool", "content": "?"}]}, "messages[1].role"),
    ({"messages": [{"role": [], "content": "?"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
    ({"messages": [USER | {"tool_calls": [1]}]}, "messages[0].tool_calls"),
    ({"messages": [USER, {"role": "assistant", "content": "8"}]}, "messages"),
    ({"messages": [{"role": "user", "content": "word " * 900}]}, "messages"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 10**400}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_k": 1.5}, "top_k"),
    ({"top_k": -2}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 9, "max_completion_tokens": 8}, "max_completion_tokens"),
    ({"seed": 2**63}, "seed"),
    ({"seed": "a"}, "seed"),
    ({"stop": ["a"] * 17}, "stop"),
    ({"stop": [""]}, "stop"),
    ({"stop": {"a": 1}}, "stop"),
    ({"n": 9}, "n"),
    ({"n": 0}, "n"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"a": 1}}, "stream_options.a"),
    ({"thinking_token_budget": -1}, "thinking_token_budget"),
    ({"chat_template_kwargs": {"tools": 1}}, "chat_template_kwargs.tools"),
    ({"chat_template_kwargs": {"enable_thinking": False}, "specexit": {"method": "eagle3"}}, "specexit.method"),
    ({"specexit": {"method": "deer"}}, "specexit.method"),
    ({"specexit": {"epsilon": 0.005}}, "specexit.epsilon"),
    ({"specexit": {"epsilon": 2}}, "specexit.epsilon"),
    ({"specexit": {"epsilon": 0.02, "method": "think"}}, "specexit.epsilon"),
    ({"specexit": {"exits": 1}}, "specexit.exits"),
    ({"specexit": []}, "specexit"),
    ({"logprobs": True}, "logprobs"),
    ({"logprobs": 1}, "logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"tools": [{}]}, "tools"),
    ({"frequency_penalty": 0.5}, "frequency_penalty"),
    ({"frequency_penalty": False}, "frequency_penalty"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"best_of": 2}, "best_of"),
    ({"model": 3}, "model"),
]


def refused(response, status: int = 400) -> dict:
    """The error of a refusal."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"].endswith(".")
    return error


@pytest.mark.parametrize("number", range(len(WRONG)), ids=[param for _, param in WRONG])
def test_a_wrong_field_is_named(client, number):
    fields, param = WRONG[number]
    body = json.dumps(chat() | fields)  # a surrogate stays \ud800
    assert refused(client.post(CHAT, content=body))["param"] == param


def test_raw_prompts_that_are_none(client):
    for prompt in ("", [], [1, "a"], [True], [-1], [2**40], ["a"], {}, [5000], [3] * 96, "w" * 9000):
        assert refused(client.post(RAW, json={"prompt": prompt}))["param"] == "prompt", prompt
    assert refused(client.post(RAW, json={"prompt": "a", "messages": [USER]}))["code"] == "unknown_parameter"
    assert refused(client.post(RAW, json={}))["param"] == "prompt"


def test_bodies_that_are_none(client):
    for body in (b"", b"{", b"[]", b"3", b'{"messages": NaN}', b"\xff", b"[" * 9000, b'{"a":' * 3000):
        assert refused(client.post(CHAT, content=body))["param"] is None, body[:20]
    million = b'{"messages": [' + b'{"role": "user", "content": "?"}, ' * 10**6 + b"1]}"
    assert refused(client.post(CHAT, content=million), 413)["code"] == "body_too_large"
    assert (
        refused(client.post(CHAT, content=iter([million[:50_000], million[:50_000]])), 413)["code"] == "body_too_large"
    )


def test_what_asks_for_nothing_is_taken(client, model):
    nothing = {
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logprobs": False,
        "tools": [],
        "n": 1,
        "user": "me",
        "store": True,
    }
    parts = [{"type": "text", "text": "Count "}, {"type": "text", "text": "the legs."}]
    asked = chat(
        [{"role": "user", "content": parts}],
        **nothing,
        stop=None,
        max_tokens=None,
        model="tiny",
        top_k=-1,
        response_format={"type": "text"},
    )
    told = client.post(CHAT, json=asked)
    assert told.status_code == 200, told.text
    said = told.json()["choices"][0]["message"]
    alone = model.generate("Count the legs.", seed=0)
    assert (said["content"], said["reasoning"]) == (alone.text, alone.thinking)


def test_keys(client):
    for header in ("", "Bearer wrong", "sesame?", "Bearer ", "Basic other"):
        for path in (CHAT, RAW):
            response = client.post(path, json=chat(), headers={"Authorization": header})
            assert (
                refused(response, 401)["code"] == "invalid_api_key" and response.headers["www-authenticate"] == "Bearer"
            )
    assert client.get("/v1/models", headers={"Authorization": ""}).status_code == 401
    assert client.get("/v1/models", headers={"Authorization": "Bearer sesame"}).status_code == 200
    assert client.get("/ready", headers={"Authorization": ""}).status_code == 200


def test_other_addresses(client):
    assert "/v1/embeddings" in refused(client.post("/v1/embeddings", json={}), 404)["message"]
    assert refused(client.get(CHAT), 405)["message"]
    assert refused(client.post(CHAT, json=chat(model="gpt")), 404)["code"] == "model_not_found"


def test_a_full_queue_refuses_and_says_when_to_come_back(client, model):
    """One slot, two places: of many at once some are refused, and those that are taken are what they are alone."""
    assert refused(client.post(CHAT, json=chat(n=3)), 429)["code"] == "queue_full"
    asked = [chat(seed=seed, temperature=0.9) for seed in range(12)]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        told = list(pool.map(lambda body: client.post(CHAT, json=body), asked))
    full = [one for one in told if one.status_code == 429]
    assert all(int(one.headers["retry-after"]) >= 1 and refused(one, 429)["type"] == "rate_limit_error" for one in full)
    for seed, one in enumerate(told):
        if one.status_code != 429:
            assert (
                one.json()["choices"][0]["message"]["content"]
                == model.generate("Count the legs.", seed=seed, temperature=0.9).text
            )
    assert client.service.idle


def test_a_request_that_takes_too_long_ends(client, monkeypatch):
    monkeypatch.setattr(client.service, "limits", Limits(seconds=0.0, queue=2))
    long = chat(temperature=1.3, specexit={"method": "eagle3"})
    assert refused(client.post(CHAT, json=long), 504)["code"] == "timeout"
    *_, last = events_of(client.post(CHAT, json=long | {"stream": True}).text)
    assert last["error"]["code"] == "timeout"
    until = time.monotonic() + 20
    while not client.service.idle:
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_server_that_stops_refuses_what_comes(client, monkeypatch):
    monkeypatch.setattr(client.service, "stopping", True)
    response = client.post(CHAT, json=chat())
    assert refused(response, 503)["code"] == "not_ready" and response.headers["retry-after"] == "5"
    assert client.get("/ready").status_code == 503 and client.get("/health").status_code == 200


def test_an_engine_that_breaks_down_is_told(model, monkeypatch, capsys):
    """And no request waits for ever."""
    with served(model, slots=1) as client:
        monkeypatch.setattr(client.service.engine.slots, "run", lambda *given: 1 / 0)
        assert refused(client.post(CHAT, json=chat()), 500)["code"] == "engine_failed"
        assert client.get("/health").status_code == 503
        assert refused(client.post(CHAT, json=chat()), 500)["code"] == "engine_failed"
    assert "ZeroDivisionError" in capsys.readouterr().err
