"""What a failed read of a checkpoint leaves behind, and nothing else, is silenced at whatever time it is collected."""

import gc
import sys

import pytest

from specexit_jax.storage.dropped_reads import silence_late_reads

READ = """
class Never:
    def __await__(self):
        yield

async def read():
    try:
        await Never()
    except BaseException as error:
        raise Exception("Encountered error while reading array index") from error
"""


@pytest.mark.parametrize(("file", "reported"), [("site-packages/orbax/checkpoint/serialization.py", 0), ("ours.py", 1)])
def test_a_read_that_is_collected_long_after_its_failure_is_not_reported(monkeypatch, file, reported):
    seen, names = [], {}
    monkeypatch.setattr(sys, "unraisablehook", lambda event: seen.append(str(event.exc_value)))
    silence_late_reads.__wrapped__()
    exec(compile(READ, file, "exec"), names)
    begun = names["read"]()
    begun.send(None)
    del begun
    gc.collect()
    assert len(seen) == reported
