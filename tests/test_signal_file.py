"""signals.npz is written and read trace by trace."""

import numpy as np
import pytest
from signals_case import save_signals

from specexit_jax.annotation.signal_file import StoredSignals, load_signals, write_signals
from specexit_jax.exits.readings import READINGS

DRAWN = np.random.default_rng(0)
SIGNALS = {f"t{n}": DRAWN.random((n * 3, 8), np.float32) for n in range(4)}


def test_a_trace_is_read_alone(tmp_path):
    path = tmp_path / "signals.npz"
    save_signals(path, SIGNALS, "digest")
    found = load_signals(path, "digest")
    assert list(found) == list(SIGNALS) and len(found) == 4 and "t9" not in found
    for name, rows in SIGNALS.items():
        np.testing.assert_array_equal(found[name], rows)
        assert found.tokens(name) == len(rows)
    with np.load(path) as file:  # as earlier versions and users read it
        np.testing.assert_array_equal(file["rows"], np.concatenate(list(SIGNALS.values())))
        assert file["lengths"].tolist() == [0, 3, 6, 9] and str(file["draft"]) == "digest"


def test_files_of_earlier_versions_are_read(tmp_path):
    rows, lengths = np.concatenate(list(SIGNALS.values())), np.array([len(rows) for rows in SIGNALS.values()])
    path, known = tmp_path / "signals.npz", {"draft": "digest", "readings": np.array(READINGS)}
    np.savez(path, ids=np.array(list(SIGNALS)), lengths=lengths, rows=rows, **known)
    np.testing.assert_array_equal(load_signals(path, "digest")["t2"], SIGNALS["t2"])
    np.savez_compressed(path, ids=np.array(list(SIGNALS)), lengths=lengths, rows=rows, **known)
    with pytest.raises(ValueError, match="is not as this version writes it: remove it"):
        load_signals(path, "digest")


def test_signals_of_several_files_are_one_and_outlive_a_new_file(tmp_path):
    one, two = tmp_path / "signals.npz", tmp_path / "signals-00001-of-00002.npz"
    save_signals(one, {"t1": SIGNALS["t1"], "t2": SIGNALS["t2"]}, "digest")
    save_signals(two, {"t3": SIGNALS["t3"]}, "digest")
    both = StoredSignals() | load_signals(one, "digest") | load_signals(two, "digest")
    assert both["t1"].shape == (3, 8)
    save_signals(one, {"t1": SIGNALS["t1"] + 1}, "digest")
    for name in ("t1", "t2", "t3"):
        np.testing.assert_array_equal(both[name], SIGNALS[name])
    save_signals(one, {}, "digest")
    assert not load_signals(one, "digest")


def test_a_write_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="9 tokens have signals, but 8 were announced"):
        write_signals(tmp_path / "signals.npz", iter([("t3", SIGNALS["t3"])]), 8, "digest")
    assert not list(tmp_path.iterdir())
