"""The server process: uvicorn, and an end that finishes what was accepted."""

from types import FrameType

import uvicorn

from specexit_jax.serving.app import app_of
from specexit_jax.serving.service import Service


class Server(uvicorn.Server):
    """At the first signal the service refuses what comes, and the process ends once nothing is at work; at the second at once."""

    def __init__(self, service: Service, host: str, port: int):
        super().__init__(
            uvicorn.Config(app_of(service), host, port, log_level="warning", access_log=False, lifespan="on")
        )
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._service.stopping:
            super().handle_exit(sig, frame)
        self._service.stopping = True

    async def on_tick(self, counter: int) -> bool:
        if self._service.stopping and self._service.idle:
            self.should_exit = True
        return await super().on_tick(counter)
