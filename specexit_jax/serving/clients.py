"""Clients of a server, in a process of their own, so that their CPU is told apart from the server's. Imports no jax.

A task is a line of JSON on standard input, {"port", "bodies", "clients"}; its answer is one on standard output: {"seconds", "cpu",
"answers"}. An answer has "seconds", "first" (seconds to the first text of a stream, else None), "thinking", "text", "tokens" and
"exit" (the token of `</think>` where an exit wrote it).
"""

import http.client
import itertools
import json
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

CHAT = "/v1/chat/completions"


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(asked(**json.loads(line))), flush=True)


def asked(port: int, bodies: Sequence[dict[str, Any]], clients: int) -> dict[str, Any]:
    """Asks for all bodies, each client for the next one as soon as it has an answer."""
    answers: list[Any] = [None] * len(bodies)
    following = itertools.count()

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while (number := next(following)) < len(bodies):
            try:
                answers[number] = _answer(connection, bodies[number])
            except Exception as error:
                answers[number] = {"error": f"{type(error).__name__}: {error}"}
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    began, computed = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - computed, "answers": answers}


def _answer(connection: http.client.HTTPConnection, body: dict[str, Any]) -> dict[str, Any]:
    began = time.perf_counter()
    connection.request("POST", CHAT, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise ValueError(response.read().decode())
    if not body.get("stream"):
        (choice,) = json.loads(response.read())["choices"]
        return _told(began, None, choice["message"], choice)
    first, parts = None, {"reasoning": "", "content": ""}
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        (choice,) = json.loads(line[6:])["choices"]
        fresh = {name: choice["delta"].get(name) or "" for name in parts}
        if first is None and any(fresh.values()):
            first = time.perf_counter() - began
        parts = {name: parts[name] + fresh[name] for name in parts}
        last = choice
    return _told(began, first, parts, last)


def _told(began: float, first: float | None, said: dict[str, Any], choice: dict[str, Any]) -> dict[str, Any]:
    own = choice["specexit"]
    return {
        "seconds": time.perf_counter() - began,
        "first": first,
        "thinking": said["reasoning"] or "",
        "text": said["content"],
        "tokens": own["tokens"]["thinking"] + own["tokens"]["answer"],
        "exit": own["exit"] and own["exit"]["token"],
    }


if __name__ == "__main__":
    main()
