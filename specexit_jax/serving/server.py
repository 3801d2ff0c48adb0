"""The server process: uvicorn, and an end that finishes what was accepted."""

import socket
from types import FrameType

import uvicorn

from specexit_jax.serving.app import app_of
from specexit_jax.serving.service import Service


def listener(host: str, port: int) -> socket.socket:
    """A socket that listens at an address. Raises ValueError, one sentence, where that cannot be."""
    try:
        (family, kind, *_, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found = socket.socket(family, kind)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        said = error.strerror or error
        raise ValueError(f"Nothing can listen at {host}:{port} ({said}): choose another --host or --port.") from None
    return found


class Server(uvicorn.Server):
    """At the first signal the service refuses what comes, and the process ends once nothing is at work; at the second at once."""

    def __init__(self, service: Service):
        super().__init__(uvicorn.Config(app_of(service), log_level="warning", access_log=False, lifespan="on"))
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.stopping:
            super().handle_exit(sig, frame)
        self._service.stopping = True

    async def on_tick(self, counter: int) -> bool:
        if self._service.stopping and self._service.idle:
            self.should_exit = True
        return await super().on_tick(counter)
