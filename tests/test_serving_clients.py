"""Clients that others wrote, against a server that listens: the openai package, and curl."""

import asyncio
import json
import shutil
import subprocess

import pytest
from serving_case import certified_model, events_of, joined, listening

from specexit_jax.serving.service import Limits

openai = pytest.importorskip("openai")
QUESTION = "Count the legs."
ASKED = {"model": "tiny", "messages": [{"role": "user", "content": QUESTION}], "seed": 1}


@pytest.fixture(scope="module")
def model(tiny, session, tmp_path_factory):
    return certified_model(tiny, tmp_path_factory.mktemp("certified") / "model", session)


@pytest.fixture(scope="module")
def address(model):
    with listening(model, keys=("sesame",), limits=Limits(queue=3)) as address:
        yield address


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="sesame", max_retries=0) as client:
        yield client


def test_whole_answers(client, model):
    found = client.chat.completions.create(**ASKED, temperature=0.9, extra_body={"specexit": {"epsilon": 0.05}})
    alone = model.generate(QUESTION, seed=1, temperature=0.9, epsilon=0.05)
    (choice,) = found.choices
    assert (choice.message.content, choice.message.reasoning) == (alone.text, alone.thinking)
    assert choice.specexit["exit"]["token"] == alone.exit.token
    assert found.usage.completion_tokens_details.reasoning_tokens == alone.usage.thinking_tokens
    assert [entry.id for entry in client.models.list()] == ["tiny"]
    raw = client.completions.create(model="tiny", prompt=list(alone.prompt_ids), seed=1, temperature=0.9)
    assert raw.choices[0].text == model.generate(list(alone.prompt_ids), seed=1, temperature=0.9).written


def test_streams(client, model):
    alone = model.generate(QUESTION, seed=1)
    reasoning = content = ""
    for chunk in client.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            reasoning += getattr(choice.delta, "reasoning", None) or ""
            content += choice.delta.content or ""
            finish = choice.finish_reason
    assert (reasoning.strip(), content.strip(), finish) == (alone.thinking, alone.text, alone.finish_reason)
    assert chunk.usage.completion_tokens == len(alone.ids)


def test_many_at_once(address, model):
    async def ask(client, seed: int) -> str:
        asked = ASKED | {"seed": seed}
        if seed % 2:
            return (await client.chat.completions.create(**asked)).choices[0].message.content
        stream = await client.chat.completions.create(**asked, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="sesame", max_retries=9) as client:
            return await asyncio.gather(*(ask(client, seed) for seed in range(6)))

    assert asyncio.run(all_of_them()) == [model.generate(QUESTION, seed=seed).text for seed in range(6)]


def test_errors_are_those_of_the_package(client, address):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(**ASKED, frequency_penalty=1.0)
    assert error.value.param == "frequency_penalty" and "frequency_penalty is not supported" in str(error.value)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**ASKED | {"model": "gpt"})
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(**ASKED, n=8)
    with (
        openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0) as other,
        pytest.raises(openai.AuthenticationError),
    ):
        other.models.list()


def test_curl(address, model):
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("there is no curl")
    command = [curl, "-sSN", f"{address}/v1/chat/completions", "-H", "Authorization: Bearer sesame", "-d"]
    alone = model.generate(QUESTION, seed=1)
    whole = subprocess.run([*command, json.dumps(ASKED)], capture_output=True, text=True, check=True).stdout
    assert json.loads(whole)["choices"][0]["message"]["content"] == alone.text
    streamed = subprocess.run(
        [*command, json.dumps(ASKED | {"stream": True})], capture_output=True, text=True, check=True
    ).stdout
    assert joined(events_of(streamed))["text"]["content"] == alone.text
