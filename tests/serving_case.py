"""A server in this process, its tiny model with a policy that is certified for several risks, and what tests ask it."""

import contextlib
import dataclasses
import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")

from starlette.testclient import TestClient

from specexit_jax.api.model import SpecExit
from specexit_jax.engine.binding import bound
from specexit_jax.engine.session import Session
from specexit_jax.exits.frontier_file import FRONTIER
from specexit_jax.exits.policy_file import PolicyFile, load_policy, save_policy
from specexit_jax.exits.risk import Certificate
from specexit_jax.serving.app import app_of
from specexit_jax.serving.offer import Offer
from specexit_jax.serving.server import Server, listener
from specexit_jax.serving.service import Limits, Service

CHAT, RAW = "/v1/chat/completions", "/v1/completions"
OPEN, LATE, NEVER = (0.0, 0.0, 1e5), (0.0, 0.55, 1e5), (1.5, 1.5, -1.0)  # thresholds of the tiny model


def certified_folder(tiny: Path, folder: Path, session: Session) -> Path:
    """The tiny model whose policy exits late, at a risk of 2 %; its frontier has a stricter and a looser one."""
    shutil.copytree(tiny, folder)
    file = load_policy(folder / "policy.json")
    test = {
        "harmed": 1,
        "p_value": 0.01,
        "risk_upper": 0.015,
        "path_split": "development",
        "traces": 10,
        "test": "binomial",
    }
    held = Certificate(
        0.02,
        0.05,
        file.split,
        10,
        step=0,
        steps=(LATE,),
        risk=0.1,
        tasks={"legs": 10},
        together=1,
        scope="legs",
        **test,
    )
    own = dataclasses.replace(file, thresholds=LATE, certificate=held, bound=None)
    save_policy(folder / "policy.json", bound(own, session))
    rows = [
        row(0.01, NEVER, 1.0),
        row(0.02, LATE, 0.5),
        row(0.05, OPEN, 0.25),
        {"epsilon": 0.001, "delta": 0.05, "refused": "few"},
    ]
    (folder / FRONTIER).write_text(json.dumps({"split": file.split, "rows": rows}))
    return folder


def certified_model(tiny: Path, folder: Path, session: Session) -> SpecExit:
    """The model of `certified_folder`, with chains of 2 drafts."""
    certified_folder(tiny, folder, session)
    return SpecExit.load(folder / "target", folder / "draft", folder / "policy.json", draft_tokens=2)


def row(epsilon: float, thresholds: tuple[float, ...], ratio: float, smoothing: str = "ewma") -> dict[str, Any]:
    """A row of frontier.json."""
    counts = {"harmed": 1, "problems": 10, "traces": 10, "test": "binomial", "risk": 0.1, "risk_upper": 0.9 * epsilon}
    told = {"epsilon": epsilon, "delta": 0.05, "smoothing": smoothing, "thresholds": list(thresholds), "budget": None}
    return told | counts | {"tokens": 10.0, "tokens_ratio": ratio}


def policy_of(folder: Path) -> PolicyFile:
    return load_policy(folder / "policy.json")


@contextlib.contextmanager
def served(
    model: SpecExit, context: int = 96, slots: int = 3, keys=(), limits: Limits = Limits(), logprobs: int = 0
) -> Iterator[TestClient]:
    """A client of a warm server; its `service` is the service."""
    service = Service(Offer(model, "tiny", context, slots, logprobs=logprobs), limits, keys)
    with TestClient(app_of(service)) as client:
        while not service.ready:
            assert not service.engine.failed
            time.sleep(0.01)
        client.service = service
        yield client


def chat(content: Any = "Count the legs.", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}] if isinstance(content, str) else content
    return {"messages": messages, "seed": 0} | fields


def events_of(text: str) -> list[dict[str, Any]]:
    """The chunks of a stream, which ends with [DONE]."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def joined(events: list[dict[str, Any]], number: int = 0) -> dict[str, Any]:
    """A choice of a stream as one of a whole answer."""
    own = [one for event in events for one in event["choices"] if one["index"] == number]
    assert own[0]["delta"] == {"role": "assistant", "content": ""} and all(
        "role" not in one["delta"] for one in own[1:]
    )
    assert all(one["finish_reason"] is None for one in own[:-1]) and not own[-1]["delta"]
    text = {
        name: "".join(one["delta"].get(name) or "" for one in own)
        for name in ("reasoning", "reasoning_content", "content")
    }
    return {"text": text, "finish_reason": own[-1]["finish_reason"], "specexit": own[-1]["specexit"], "own": own}


async def over_asgi(app: Any, body: dict[str, Any], leaves, path: str = CHAT) -> list[dict[str, Any]]:
    """What the app sends to a client that leaves once `leaves(messages)` is true."""
    import asyncio

    sent, changed = [], asyncio.Event()
    asked = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive() -> dict[str, Any]:
        if asked:
            return asked.pop()
        while not leaves(sent):
            changed.clear()
            await changed.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        changed.set()

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": [],
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
    }
    scope |= {
        "raw_path": path.encode(),
        "http_version": "1.1",
        "server": ("x", 1),
        "client": ("y", 2),
        "asgi": {"version": "3.0"},
    }
    await app(scope, receive, send)
    return sent


@contextlib.contextmanager
def listening(model: SpecExit, **options: Any) -> Iterator[str]:
    """The address of a warm server that listens, in a thread of this process. options: of `Service`'s constructor."""
    service = Service(Offer(model, "tiny", 96, 3), **options)
    at = listener("127.0.0.1", 0)
    server = Server(service)
    thread = threading.Thread(target=server.run, args=([at],))
    thread.start()
    while not service.ready:
        assert thread.is_alive() and not service.engine.failed
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{at.getsockname()[1]}"
    finally:
        server.handle_exit(signal.SIGTERM, None)
        thread.join()
