"""The server under load: many clients of every kind at once, each of whose answers is what it is alone.

SPECEXIT_LOAD_SECONDS (60) says how long; SPECEXIT_LOAD_CLIENTS (64) how many.
"""

import asyncio
import collections
import contextlib
import io
import json
import os
import random
import time
from typing import Any

import numpy as np
import pytest
from serving_process_case import metrics_of, question, started

from specexit_jax import SpecExit
from specexit_jax.data.splits import sample

httpx = pytest.importorskip("httpx")
pytestmark = pytest.mark.slow
CHAT = "/v1/chat/completions"
SECONDS, CLIENTS = float(os.environ.get("SPECEXIT_LOAD_SECONDS", 60)), int(os.environ.get("SPECEXIT_LOAD_CLIENTS", 64))
DIFFERENT = 500  # requests
RISKS = (0.0025, 0.01, 0.05)  # some of the bundled policy's


def bodies() -> list[dict[str, Any]]:
    """Requests of all kinds, none like another."""
    rng, found = random.Random(5), []
    problems = sample("development", DIFFERENT // 6 + 1)[:DIFFERENT]
    for number, problem in enumerate(problems):
        own: dict[str, Any] = {"seed": number, "temperature": rng.choice([0, 0.6, 0.8, 1.0])}
        own["max_tokens"] = rng.choice([880, 880, rng.randint(1, 300)])
        kind = rng.random()
        if kind < 0.6:
            own["specexit"] = {"epsilon": rng.choice(RISKS)}
        elif kind < 0.75:
            own["specexit"] = {"method": rng.choice(["eagle3", "think"])}
        elif kind < 0.85:
            own["chat_template_kwargs"] = {"enable_thinking": False}
        if rng.random() < 0.2:
            own["top_p"], own["top_k"] = 0.95, rng.choice([0, 20])
        if rng.random() < 0.2:
            own["thinking_token_budget"] = rng.randint(0, 200)
        found.append(question(problem.question, **own))
    return found


def alone(model: SpecExit, body: dict[str, Any]) -> tuple[str, str, int]:
    """(reasoning, content, tokens) of a request by the API."""
    told = {"max_tokens": "max_new_tokens", "thinking_token_budget": "thinking_budget"}
    names = ("seed", "temperature", "max_tokens", "top_p", "top_k", "thinking_token_budget")
    settings = {told.get(name, name): body[name] for name in names if name in body}
    own = dict(body.get("specexit", {}))
    method = "nothink" if "chat_template_kwargs" in body else own.pop("method", "specexit")
    answer = model.generate(body["messages"], **settings, **own, method=method)
    return answer.thinking, answer.text, len(answer.ids)


WRONG = [
    (b"{", 400), (b"[]", 400), (b'{"messages": 3}', 400), (b'{"messages": [{"role": "user", "content": "?"}], "n": 99}', 400),
    (json.dumps({"messages": [{"role": "user", "content": "?"}] * 100_000}).encode(), 413), (b'{"prompt": "a"}', 400),
]  # fmt: skip


class Load:
    """Clients, and what they saw: answers by the number of their request, what was wrong, seconds to the first text and between."""

    def __init__(self, address: str, asked: list[dict[str, Any]]):
        self.address, self.asked, self.until = address, asked, 0.0
        self._new = list(range(len(asked)))  # each is asked once before any is asked again
        self.found: list[tuple[int, tuple[str, str, int]]] = []
        self.kinds: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.first: list[float] = []
        self.gaps: list[float] = []
        self.memory: list[float] = []

    async def run(self) -> None:
        limits = httpx.Limits(max_connections=None)
        self.until = time.monotonic() + SECONDS
        async with httpx.AsyncClient(base_url=self.address, timeout=120, limits=limits) as client:
            async with asyncio.TaskGroup() as group:
                for number in range(CLIENTS):
                    group.create_task(self._client(client, random.Random(number)))
                group.create_task(self._watch(client))
            while await self._busy(client):
                await asyncio.sleep(0.05)

    async def _busy(self, client) -> bool:
        told = metrics_of((await client.get("/metrics")).text)
        return bool(told["specexit_slots_busy"] + told["specexit_queue_length"])

    async def _watch(self, client) -> None:
        while time.monotonic() < self.until:
            self.memory.append(metrics_of((await client.get("/metrics")).text)["process_resident_memory_bytes"] / 2**20)
            await asyncio.sleep(SECONDS / 60)

    async def _client(self, client, rng: random.Random) -> None:
        kinds = {"whole": self._whole, "stream": self._stream, "slow": self._slow}
        kinds |= {"leaves": self._leaves, "malformed": self._malformed}
        while time.monotonic() < self.until:
            (kind,) = rng.choices(list(kinds), [3, 4, 0.5, 1, 0.5])
            answered = kind not in ("leaves", "malformed")
            number = self._new.pop() if answered and self._new else rng.randrange(len(self.asked))
            await kinds[kind](client, rng, number)
            self.kinds[kind] += 1

    async def _whole(self, client, rng: random.Random, number: int) -> None:
        response = await client.post(CHAT, json=self.asked[number])
        if response.status_code != 200:
            self.wrong.append(response.text)
            return
        told = response.json()
        said = told["choices"][0]["message"]
        self.found.append((number, (said["reasoning"] or "", said["content"], told["usage"]["completion_tokens"])))

    async def _stream(self, client, rng: random.Random, number: int, pause: float = 0.0) -> None:
        asked = self.asked[number] | {"stream": True, "stream_options": {"include_usage": True}}
        last, tokens = time.perf_counter(), None
        begun, parts = False, {"reasoning": "", "content": ""}
        async with client.stream("POST", CHAT, json=asked) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    self.wrong.append(line)
                tokens = event.get("usage", {}).get("completion_tokens", tokens)
                for choice in event.get("choices", ()):
                    fresh = {name: choice["delta"].get(name) or "" for name in parts}
                    parts = {name: parts[name] + fresh[name] for name in parts}
                    if any(fresh.values()) and not pause:
                        now = time.perf_counter()
                        (self.gaps if begun else self.first).append(now - last)
                        last, begun = now, True
                if pause:
                    await asyncio.sleep(pause)
        self.found.append((number, (parts["reasoning"], parts["content"], tokens)))

    async def _slow(self, client, rng: random.Random, number: int) -> None:
        await self._stream(client, rng, number, pause=0.05)

    async def _leaves(self, client, rng: random.Random, number: int) -> None:
        after = rng.randint(0, 4)
        async with client.stream("POST", CHAT, json=self.asked[number] | {"stream": True}) as response:
            async for _ in response.aiter_lines():
                after -= 1
                if after < 0:
                    return

    async def _malformed(self, client, rng: random.Random, number: int) -> None:
        body, status = rng.choice(WRONG)
        response = await client.post(CHAT, content=body)
        if response.status_code != status:
            self.wrong.append(response.text)


def quantiles(seconds: list[float]) -> str:
    low, high = np.quantile(seconds, [0.5, 0.99])
    return f"p50 {1000 * low:.0f} ms, p99 {1000 * high:.0f} ms"


def test_every_answer_under_load_is_what_it_is_alone():
    asked = bodies()
    with started() as server:
        load = Load(server.address, asked)
        asyncio.run(load.run())
        after = metrics_of(httpx.get(server.address + "/metrics").text)
        assert not [line for line in server.told if "does not cover" in line]
    print(f"\n{dict(load.kinds)}, {len({number for number, _ in load.found})} different; first token {quantiles(load.first)}; "
          f"gap {quantiles(load.gaps)}; memory {load.memory[len(load.memory) // 4]:.0f} to {load.memory[-1]:.0f} MB; "
          f"{sum(own[2] for _, own in load.found) / SECONDS:.0f} tokens/s")  # fmt: skip
    assert not load.wrong and len(load.found) > CLIENTS
    assert after["specexit_slots_busy"] == after["specexit_queue_length"] == 0
    assert load.memory[-1] - load.memory[len(load.memory) // 4] < 40
    model = SpecExit.load()
    with contextlib.redirect_stderr(io.StringIO()):  # the API notes each request that the certificate does not cover
        expected = {number: alone(model, asked[number]) for number in {number for number, _ in load.found}}
    different = [number for number, own in load.found if own != expected[number]]
    assert not different
