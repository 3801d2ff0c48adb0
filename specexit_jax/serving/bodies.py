"""A request's body: read up to a limit, and parsed as a JSON object."""

import asyncio
import json
from typing import Any

from starlette.requests import ClientDisconnect, Request

from specexit_jax.serving.refusals import Refused

SECONDS = 30  # a body takes at most so long to arrive


async def json_object(request: Request, largest: int) -> dict[str, Any]:
    """The body. largest: bytes. Raises Refused on one that is too large, too slow, or no JSON object."""
    try:
        async with asyncio.timeout(SECONDS):
            body = await _read(request, largest)
    except TimeoutError:
        raise Refused(408, f"The body took longer than {SECONDS} seconds to arrive.") from None
    except ClientDisconnect:
        raise Refused(400, "The body ended before it was whole.") from None
    try:
        found = json.loads(body, parse_constant=_no_number)
    except RecursionError:
        raise Refused(400, "The body is nested too deeply.") from None
    except ValueError as error:
        raise Refused(400, f"The body is not valid JSON: {error}.") from None
    if not isinstance(found, dict):
        raise Refused(400, f"The body is a JSON object, not {type(found).__name__}.")
    return found


async def _read(request: Request, largest: int) -> bytes:
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > largest:
        raise _too_large(largest)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > largest:
            raise _too_large(largest)
        parts.append(part)
    return b"".join(parts)


def _too_large(largest: int) -> Refused:
    return Refused(413, f"The body is larger than {largest} bytes.", code="body_too_large")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")
