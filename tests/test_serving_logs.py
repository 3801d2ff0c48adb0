"""Log-probabilities over HTTP: those that the API gives for the same request, whole or streamed."""

import numpy as np
import pytest
from serving_case import CHAT, RAW, certified_model, chat, events_of, served

from specexit_jax.serving.logs import text

QUESTION = "Count the legs."


@pytest.fixture(scope="module")
def model(tiny, session, tmp_path_factory):
    return certified_model(tiny, tmp_path_factory.mktemp("certified") / "model", session)


@pytest.fixture(scope="module")
def client(model):
    with served(model, logprobs=3) as client:
        yield client


def assert_are(session, content: list[dict], answer, most: int) -> None:
    """Entries of a chat are the API's log-probabilities, of every token."""
    found = answer.logprobs
    assert [each["token"] for each in content] == [text(session, token) for token in answer.ids]
    np.testing.assert_allclose([each["logprob"] for each in content], found.tokens, atol=1e-5)
    best = [[one["token"] for one in each["top_logprobs"]] for each in content]
    assert best == [[text(session, token) for token in row] for row in found.best[:, :most]]
    logs = [[one["logprob"] for one in each["top_logprobs"]] for each in content]
    np.testing.assert_allclose(logs, found.best_logs[:, :most], atol=1e-5)
    assert all(bytes(each["bytes"]).decode() == each["token"] for each in content if each["bytes"] is not None)


def test_a_chats_are_those_of_the_api(client, model):
    """Of thinking, forced and answer tokens, as many as usage counts; with an exit and without."""
    for fields in ({"seed": 1, "temperature": 0.9}, {"seed": 1, "temperature": 0.9, "specexit": {"epsilon": 0.05}}):
        own = {**fields, **fields.get("specexit", {})}
        answer = model.generate(QUESTION, logprobs=3, **{key: own[key] for key in own if key != "specexit"})
        found = client.post(CHAT, json=chat(logprobs=True, top_logprobs=2, **fields) | fields).json()
        (choice,) = found["choices"]
        assert len(choice["logprobs"]["content"]) == found["usage"]["completion_tokens"] == len(answer.ids)
        assert_are(model.session, choice["logprobs"]["content"], answer, 2)
        told = client.post(CHAT, json=chat(logprobs=True, stream=True, **fields) | fields).text
        logs = [one["logprobs"] for event in events_of(told) for one in event["choices"]]
        joined = [each for one in logs if one for each in one["content"]]
        assert_are(model.session, joined, answer, 0)


def test_they_end_with_a_stop_text(client, model):
    answer = model.generate(QUESTION, seed=0)
    stop = answer.text[2:4]
    found = client.post(CHAT, json=chat(logprobs=True, stop=stop)).json()
    assert found["choices"][0]["finish_reason"] == "stop"
    content = found["choices"][0]["logprobs"]["content"]
    assert len(content) == found["usage"]["completion_tokens"] < len(answer.ids)


def test_of_a_raw_completion(client, model):
    ids = list(model.plan(QUESTION).prompt_ids)
    (choice,) = client.post(RAW, json={"prompt": ids, "seed": 0, "logprobs": 2}).json()["choices"]
    answer, found = model.generate(ids, seed=0, logprobs=2), choice["logprobs"]
    assert found["tokens"] == [text(model.session, token) for token in answer.ids]
    np.testing.assert_allclose(found["token_logprobs"], answer.logprobs.tokens, atol=1e-5)
    assert all(len(each) == 2 for each in found["top_logprobs"])
    assert found["text_offset"][0] == 0 and np.diff(found["text_offset"]).tolist() == [
        len(t) for t in found["tokens"][:-1]
    ]
    told = client.post(RAW, json={"prompt": ids, "seed": 0, "logprobs": 0, "stream": True}).text
    logs = [one["logprobs"] for event in events_of(told) for one in event["choices"] if one["logprobs"]]
    assert [place for each in logs for place in each["text_offset"]] == found["text_offset"]


def test_more_than_are_kept_are_refused(client, model):
    error = client.post(CHAT, json=chat(logprobs=True, top_logprobs=4)).json()["error"]
    assert error["param"] == "top_logprobs" and "only of 3 likely tokens" in error["message"]
    assert client.post(CHAT, json=chat(top_logprobs=1)).json()["error"]["param"] == "top_logprobs"
    with served(model, slots=1, logprobs=0) as other:
        assert "but none" in other.post(CHAT, json=chat(logprobs=True)).json()["error"]["message"]
        assert "but none" in other.post(RAW, json={"prompt": "a", "logprobs": 0}).json()["error"]["message"]
