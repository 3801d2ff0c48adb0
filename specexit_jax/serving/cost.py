"""What a server costs beside the engine: tokens a second under load, and the seconds of a request that is alone."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from specexit_jax.api.model import SpecExit
from specexit_jax.engine.scheduler import serve
from specexit_jax.engine.warming import warming
from specexit_jax.serving import clients
from specexit_jax.serving.fields import asked_of
from specexit_jax.serving.offer import Offer
from specexit_jax.serving.server import Server, listener
from specexit_jax.serving.service import Service

Bodies = Sequence[dict[str, Any]]
Answers = list[dict[str, Any]]


def serving_cost(
    model: SpecExit, offer: Callable[[], Offer], questions: Sequence[str], *, many: int, rounds: int, lone: int
) -> dict[str, Any]:
    """Measures a server in this process and clients in another, in interleaved rounds; compilation is left out.

    offer: makes the same offer twice, of the server and of slots that are driven directly. many: clients at once. lone: how many
    of the questions are also asked one after the other. Every number is a median over rounds, with [least, greatest] of them.
    Raises ValueError should the ways answer differently.
    """
    bodies = [{"messages": [{"role": "user", "content": text}], "seed": seed} for seed, text in enumerate(questions)]
    slots = offer()
    driven = _Driven(slots, bodies)
    with _server(Service(offer())) as port, _client() as ask:

        def over(own: Bodies, clients: int, streams: bool) -> Answers:
            return ask(port=port, bodies=[body | {"stream": streams} for body in own], clients=clients)["answers"]

        ways = {"direct": driven.answers, "whole": lambda: over(bodies, many, False)}
        load = _under_load(ways | {"streamed": lambda: over(bodies, many, True)}, rounds)
        own = bodies[:lone]
        ways = {"api": lambda: _by_api(model, own), "whole": lambda: over(own, 1, False)}
        single = _single(ways | {"streamed": lambda: over(own, 1, True)}, rounds)
    return {
        "requests": len(bodies),
        "clients": many,
        "slots": slots.size,
        "rounds": rounds,
        "load": load,
        "alone": single,
    }


def _under_load(ways: dict[str, Callable[[], Answers]], rounds: int) -> dict[str, Any]:
    """Wall and CPU seconds of this process for each way, and their ratios to the first within a round."""
    seconds = {name: np.zeros(rounds) for name in ways}
    computed, found = {name: np.zeros(rounds) for name in ways}, {}
    for turn in range(-1, rounds):
        for name in ways if turn % 2 else reversed(ways):
            began, cpu = time.perf_counter(), time.process_time()
            found[name] = ways[name]()
            if turn >= 0:
                seconds[name][turn] = time.perf_counter() - began
                computed[name][turn] = time.process_time() - cpu
    _check(found)
    first = next(iter(ways))
    tokens = sum(answer["tokens"] for answer in found[first])
    return {
        "tokens": tokens,
        "tokens_per_second": {name: _spread(tokens / seconds[name]) for name in ways},
        "cpu_ms_per_token": {name: _spread(1000 * computed[name] / tokens) for name in ways},
        "times_the_seconds": {name: _spread(seconds[name] / seconds[first]) for name in ways if name != first},
        "times_the_cpu": {name: _spread(computed[name] / computed[first]) for name in ways if name != first},
    }


def _single(ways: dict[str, Callable[[], Answers]], rounds: int) -> dict[str, Any]:
    """Milliseconds of a request, by the median over requests in each round; overhead: of HTTP over the API, request by request.
    cpu: of this process, by the mean."""
    found: dict[str, Answers] = {}
    taken: dict[str, list[list[float]]] = {name: [] for name in ways}
    computed: dict[str, list[float]] = {name: [] for name in ways}
    first: list[list[float]] = []
    for turn in range(-1, rounds):
        for name in ways if turn % 2 else reversed(ways):
            cpu = time.process_time()
            found[name] = ways[name]()
            if turn >= 0:
                computed[name].append(1000 * (time.process_time() - cpu) / len(found[name]))
                taken[name].append([1000 * answer["seconds"] for answer in found[name]])
        if turn >= 0:
            # An answer without a text has no first one.
            first.append([1000 * answer["first"] for answer in found["streamed"] if answer["first"] is not None])
    _check(found)
    own = {name: np.array(rows) for name, rows in taken.items()}
    return {
        "requests": len(found["api"]),
        "tokens": sum(answer["tokens"] for answer in found["api"]),
        "ms": {name: _spread(np.median(rows, axis=1)) for name, rows in own.items()},
        "cpu_ms": {name: _spread(np.array(each)) for name, each in computed.items()},
        "first_text_ms": _spread(np.array([np.median(row) for row in first])),
        "overhead_ms": {name: _spread(np.median(own[name] - own["api"], axis=1)) for name in ways if name != "api"},
    }


def _check(found: dict[str, Answers]) -> None:
    """Raises ValueError where two ways wrote different answers, or took different exits."""
    if errors := [answer["error"] for answers in found.values() for answer in answers if "error" in answer]:
        raise ValueError(f"The server did not answer: {errors[0]}")
    told = {
        name: [[answer[key] for key in ("tokens", "exit")] for answer in answers] for name, answers in found.items()
    }
    texts = {
        name: [(answer["thinking"].strip(), answer["text"].strip()) for answer in answers]
        for name, answers in found.items()
        if "text" in answers[0]
    }
    for same in (list(told.values()), list(texts.values())):
        if any(each != same[0] for each in same):
            raise ValueError("The ways answered differently, so their times cannot be compared.")


def _spread(values: np.ndarray) -> list[float]:
    """[median, least, greatest]"""
    return [float(np.median(values)), float(values.min()), float(values.max())]


def _by_api(model: SpecExit, bodies: Bodies) -> Answers:
    found = []
    for body in bodies:
        began = time.perf_counter()
        answer = model.generate(body["messages"], seed=body["seed"])
        seconds = time.perf_counter() - began
        left = answer.exit and answer.exit.token
        found.append(
            {
                "seconds": seconds,
                "thinking": answer.thinking,
                "text": answer.text,
                "tokens": len(answer.ids),
                "exit": left,
            }
        )
    return found


class _Driven:
    """An offer's slots, without a server, and requests that are prepared for them."""

    def __init__(self, offer: Offer, bodies: Bodies):
        self._requests = [offer.choices(asked_of(body, True))[0].job.request for body in bodies]
        self._slots = offer.open_slots()
        for _ in warming(self._slots, 1):
            pass

    def answers(self) -> Answers:
        """The number of tokens and the exit of each."""
        found: Answers = [{}] * len(self._requests)
        for number, result, _ in serve(self._slots, enumerate(self._requests)):
            start, left = int(result.prompt_length[0]), int(result.exit_position[0])
            found[number] = {"tokens": int(result.length[0]) - start, "exit": left - start if left >= 0 else None}
        return found


@contextlib.contextmanager
def _server(service: Service) -> Iterator[int]:
    """The port of a warm server in a thread of this process."""
    at = listener("127.0.0.1", 0)
    server = Server(service)
    thread = threading.Thread(target=server.run, args=([at],))
    thread.start()
    try:
        while not service.ready:
            if service.engine.failed or not thread.is_alive():
                raise ValueError("The server did not start.")
            time.sleep(0.05)
        yield at.getsockname()[1]
    finally:
        server.handle_exit(signal.SIGTERM, None)
        thread.join()


@contextlib.contextmanager
def _client() -> Iterator[Callable[..., dict[str, Any]]]:
    """What asks in another process, as `clients.asked`."""
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, clients.__file__], **piped)

    def ask(**task: Any) -> dict[str, Any]:
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    try:
        yield ask
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()
