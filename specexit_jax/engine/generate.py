"""From requests to outcomes. Every request takes the same way, and each step is done once:

checked   checking.py                            a wrong request is refused with one sentence, before any is decoded
prepared  preparing.py, keys.py                  prompt, open thinking, key, sampling and length: a PreparedRequest
placed    batches.py, or slots.py, scheduler.py  a row of a closed batch, or a slot that is refilled
decoded   decoding/loop/, specs.py               one compiled loop on the device, and what it is compiled for
outcome   outcomes.py                            tokens, exit, counts and seconds, read from the row: an Outcome
"""

from collections.abc import Iterator, Sequence

from specexit_jax.engine.batches import decode_batches
from specexit_jax.engine.methods import Method
from specexit_jax.engine.outcomes import Outcome
from specexit_jax.engine.placement import Clock, Placement
from specexit_jax.engine.preparing import prepare
from specexit_jax.engine.requests import DecodeSettings, PreparedRequests, Request
from specexit_jax.engine.scheduler import decode_in_slots
from specexit_jax.engine.session import Session


def generate(
    session: Session,
    requests: Sequence[Request],
    method: Method,
    settings: DecodeSettings = DecodeSettings(),
    placement: Placement = Placement(),
) -> list[Outcome]:
    """Decodes all requests; outcomes in the order of the requests. Raises as `prepare`."""
    found = {(outcome.id, outcome.seed): outcome for outcome in stream(session, requests, method, settings, placement)}
    return [found[request.id, request.seed] for request in requests]


def stream(
    session: Session,
    requests: Sequence[Request],
    method: Method,
    settings: DecodeSettings = DecodeSettings(),
    placement: Placement = Placement(),
) -> Iterator[Outcome]:
    """Decodes all requests and yields their outcomes one by one, in the order of `decode_prepared`.

    Raises as `prepare`, at once.
    """
    return decode_prepared(prepare(session, requests, method, settings), placement)


def decode_prepared(
    prepared: PreparedRequests, placement: Placement = Placement(), clock: Clock | None = None
) -> Iterator[Outcome]:
    """Decodes prepared requests and yields their outcomes one by one.

    Their order: of one row, that of the requests; of slots, as `Placement.in_order` says; of closed batches, shortest prompts
    first. clock: is set to the time of decoding so far before each outcome.
    """
    place = decode_in_slots if placement.in_slots else decode_batches
    return place(prepared, placement, clock or Clock())
