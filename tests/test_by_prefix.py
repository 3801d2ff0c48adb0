"""A program for each live prefix writes what one program for all of them writes, and those that no row reaches are not compiled."""

import dataclasses

import numpy as np
import pytest
from decoding_case import SAMPLED, Requests, boundary_table, run, tiny_params, tiny_spec

from specexit_jax.decoding.loop import by_prefix, segments
from specexit_jax.decoding.loop.by_prefix import PrefixPrograms
from specexit_jax.decoding.spec import DEFAULT_PREFIXES
from specexit_jax.engine.batches import decode_batches, plan, prefill_alone, warm_up
from specexit_jax.engine.placement import Clock, Placement
from specexit_jax.engine.preparing import prepare
from specexit_jax.engine.requests import DecodeSettings, Request
from specexit_jax.exits.policy import NeverExit


@pytest.fixture
def reached(monkeypatch):
    """The live prefixes whose loop is called, in order."""
    called, segment = [], segments.segment

    def seen(loop, live, *rest):
        called.append(live)
        return segment(loop, live, *rest)

    monkeypatch.setattr(segments, "segment", seen)
    return called


@pytest.mark.slow
def test_the_result_is_that_of_one_program_and_only_reached_prefixes_are_compiled(reached):
    spec, programs = tiny_spec(2, buffer_length=100, live_prefixes=(48,), stop_ids=()), PrefixPrograms(None)
    short, long = spec.prefixes
    arguments = tiny_params(), NeverExit(), boundary_table()

    def decoded(*lengths, **more):
        """(the result, the prefixes whose loops were called, whether a program was new)."""
        requests = dataclasses.replace(Requests.random(3, seed=5), max_length=np.array(lengths, np.int32))
        before, reached[:] = programs.compile_seconds, []
        rows = spec.rows(requests.rows())
        found = programs.decode(spec.bare, arguments[0], rows, *arguments[1:], **more)
        return requests, found, (set(reached), programs.compile_seconds > before)

    assert decoded(20, 30, 3)[2] == ({short}, True)
    assert decoded(30, 20, 3)[2] == ({short}, False)
    assert decoded(0, 0, 0, all_prefixes=True)[2] == ({short, long}, True)
    requests, found, told = decoded(20, 98, 60)
    assert told == ({short, long}, False)
    wanted = run(spec, arguments[0], requests.rows(), *arguments[1:])
    assert wanted.length.tolist() == [20, 98, 60]
    for name, value in vars(wanted).items():
        if value is not None:
            np.testing.assert_allclose(getattr(found, name), value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_closed_batches_off_the_cpu_are_decoded_so(session, specexit, monkeypatch, reached):
    """The same outcomes; a warm-up compiles every prefix, and reading the prompts alone needs the first."""
    monkeypatch.setitem(DEFAULT_PREFIXES, 16, {144})
    session = dataclasses.replace(session, target=dataclasses.replace(session.target, max_position=256))
    requests = [Request(id=str(number), prompt_ids=tuple(range(7, 12 + number))) for number in range(3)]
    prepared = prepare(session, requests, specexit, DecodeSettings(SAMPLED, max_new_tokens=60))
    wanted = list(decode_batches(prepared, Placement(), Clock()))
    assert not reached, "one program on a CPU"
    monkeypatch.setattr(by_prefix, "on_cpu", lambda: False)
    found = list(decode_batches(prepared, Placement(), Clock()))
    assert reached
    for a, b in zip(found, wanted, strict=True):
        assert (a.id, a.ids, a.exit, a.steps, a.accepted) == (b.id, b.ids, b.exit, b.steps, b.accepted)
    (batch, *_) = plan(prepared)
    prefixes = set(batch.spec.prefixes_after(batch.rows.prompts.shape[1]))
    for call, lives in ((warm_up, prefixes), (prefill_alone, {min(prefixes)})):
        reached.clear()
        call(batch)
        assert set(reached) == lives and len(prefixes) > 1
