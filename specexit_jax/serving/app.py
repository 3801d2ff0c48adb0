"""The addresses of the server (docs/serving.md)."""

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from specexit_jax.serving import blocks, bodies
from specexit_jax.serving.event_stream import EventStream, gone
from specexit_jax.serving.fields import Asked, asked_of
from specexit_jax.serving.refusals import Refused
from specexit_jax.serving.replies import Replies, usage_of
from specexit_jax.serving.service import Answers, Service
from specexit_jax.serving.static import page_routes

_LONG = 20_000  # characters of a prompt that is encoded in a thread, so that streams do not wait for it
_SLOW = 30  # seconds after a request's end at which a client that does not read is left
Endpoint = Callable[[Request], Awaitable[Response]]


def app_of(service: Service) -> Starlette:
    """The ASGI application. Its lifespan starts and ends the engine."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start()
        yield
        await run_in_threadpool(service.close)

    routes = [
        Route("/v1/chat/completions", _told(service, partial(_complete, service, True)), methods=["POST"]),
        Route("/v1/completions", _told(service, partial(_complete, service, False)), methods=["POST"]),
        Route("/v1/models", _told(service, partial(_models, service)), methods=["GET"]),
        Route("/v1/models/{name:path}", _told(service, partial(_models, service)), methods=["GET"]),
        Route("/health", partial(_health, service), methods=["GET"]),
        Route("/ready", partial(_ready, service), methods=["GET"]),
        Route("/metrics", partial(_metrics, service), methods=["GET"]),
        *page_routes(),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _elsewhere})


def _told(service: Service, endpoint: Endpoint) -> Endpoint:
    """The endpoint for who has a key. What is refused becomes a response; every response is counted."""

    async def answered(request: Request) -> Response:
        try:
            service.admit(request.headers.get("authorization", ""))
            response = await endpoint(request)
        except Refused as refusal:
            response = refusal.response()
        except Exception:
            traceback.print_exc()
            response = Refused(500, "The server made a mistake.", code="internal_error").response()
        service.metrics.requests.labels(request.scope["route"].path, str(response.status_code)).inc()
        return response

    return answered


async def _complete(service: Service, chat: bool, request: Request) -> Response:
    asked = asked_of(await bodies.json_object(request, service.limits.largest_body), chat)
    service.check_room(asked.choices)
    if len(str(asked.prompt)) > _LONG:
        choices = await run_in_threadpool(service.offer.choices, asked)
    else:
        choices = service.offer.choices(asked)
    answers = service.accept(asked, choices)
    replies = Replies(chat, service.offer.name)
    service.open += 1
    if asked.stream:
        events, leave = _events(answers, asked, replies), partial(_leave, service, answers)
        return EventStream(events, leave, service.limits.seconds + _SLOW)
    try:
        return await _unless_gone(request, _whole(answers, replies))
    finally:
        _leave(service, answers)


def _leave(service: Service, answers: Answers) -> None:
    service.open -= 1
    answers.close()


async def _whole(answers: Answers, replies: Replies) -> Response:
    ends = {}
    async for one, update in answers.updates():
        if update.finish is not None:
            ends[one] = update
    choices = [
        replies.choice(
            one.choice.number, one.reasoning, one.content, ends[one].finish, ends[one].block, one.told_logs(one.logs)
        )
        for one in answers.all
    ]
    return JSONResponse(replies.whole(choices, _usage(answers, [each["specexit"] for each in choices])))


async def _events(answers: Answers, asked: Asked, replies: Replies) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a stream."""
    for one in answers.all:
        yield replies.chunk(one.choice.number, {"begin": blocks.beginning(one.choice)}, first=True)
    ended = []
    try:
        async for one, update in answers.updates():
            number = one.choice.number
            if update.finish is None:
                yield replies.chunk(
                    number, update.block, update.reasoning, update.content, logs=one.told_logs(update.logs)
                )
                continue
            if update.reasoning or update.content or update.logs:
                logs = one.told_logs(update.logs)
                yield replies.chunk(number, {}, update.reasoning, update.content, logs=logs)
            ended.append(update.block)
            yield replies.chunk(number, update.block, finish=update.finish)
    except Refused as refusal:
        yield refusal.body
        return
    if asked.usage:
        yield replies.last(_usage(answers, ended))


def _usage(answers: Answers, ended: list[dict[str, Any]]) -> dict[str, Any]:
    return usage_of(answers.prompt_tokens, [block["tokens"] for block in ended])


async def _unless_gone(request: Request, work: Awaitable[Response]) -> Response:
    """What `work` gives; nothing more is done once the client has left."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone(request.receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else Response(status_code=499)
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _models(service: Service, request: Request) -> Response:
    told, name = service.offer.told(), request.path_params.get("name")
    if name is None:
        return JSONResponse({"object": "list", "data": [told]})
    if name != service.offer.name:
        raise Refused(404, f"There is no model {name[:80]!r}.", "model", "model_not_found")
    return JSONResponse(told)


async def _health(service: Service, request: Request) -> Response:
    failed = service.engine.failed
    return JSONResponse({"status": "failed" if failed else "ok"}, 503 if failed else 200)


async def _ready(service: Service, request: Request) -> Response:
    warm = service.engine.warm_seconds
    status = (
        "stopping"
        if service.stopping
        else "ready"
        if service.ready
        else "failed"
        if service.engine.failed
        else "warming"
    )
    return JSONResponse({"status": status, "warm_seconds": warm}, 200 if service.ready else 503)


async def _metrics(service: Service, request: Request) -> Response:
    service.metrics.warm.set(service.engine.warm_seconds or 0)
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


async def _elsewhere(request: Request, error: HTTPException) -> Response:
    told = {
        404: f"There is no address {request.url.path[:80]}.",
        405: f"{request.url.path} does not take {request.method}.",
    }
    response = Refused(error.status_code, told.get(error.status_code, str(error.detail))).response()
    response.headers.update(error.headers or {})
    return response
