"""Arguments that a call has changed in the other process, changed here."""

import collections
import sys


def restore(old, new):
    """Makes `old` what `new` is, keeping it and what it holds the same objects where their types are the same; returns it, or
    `new` where it cannot be changed."""
    kind = type(old)
    if old is new or kind is not type(new):
        return new
    if kind is list:
        old[:] = [restore(*both) for both in zip(old, new)] + new[len(old) :]  # noqa: B905  either may be the longer one
    elif kind is tuple:
        return _restore_tuple(old, new)
    elif isinstance(old, dict):
        _restore_dict(old, new)
    elif kind is set:
        old.clear()
        old.update(new)
    elif kind in (bytearray, collections.deque):
        old.clear()
        old.extend(new)
    elif "numpy" in sys.modules and kind is sys.modules["numpy"].ndarray:
        if old.shape != new.shape or old.dtype != new.dtype:
            return new
        old[...] = new
    elif kind.__module__ == "solution" and hasattr(old, "__dict__"):
        _restore_dict(vars(old), vars(new))
    else:
        return new
    return old


def _restore_tuple(old, new):
    if len(old) != len(new):
        return new
    made = tuple(map(restore, old, new))
    return old if all(map(lambda one, other: one is other, old, made)) else made


def _restore_dict(old, new):
    kept = {key: restore(old[key], value) if key in old else value for key, value in new.items()}
    old.clear()
    old.update(kept)
