"""A new exit rule is a class and a row of the table: policy.json can hold it, commands accept its name, the loop exits by it."""

import dataclasses
import json

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import BOUNDARIES, Requests, boundary_table, run, tiny_params, tiny_spec

from specexit_jax.engine.methods import METHODS, runs_alone
from specexit_jax.exits.policy import POLICIES, first_column
from specexit_jax.exits.policy_file import PolicyFile, load_policy, save_policy
from specexit_jax.exits.protocols import Rule, Terms


@flax.struct.dataclass
class Nth(Rule):
    """Exits at the boundary of that number, whatever the signals say."""

    number: jax.Array

    @classmethod
    def smoothings(cls):
        return ("none",)

    @classmethod
    def of(cls, terms: Terms):
        return cls(jnp.int32(terms.settings["number"]))

    @classmethod
    def wrong_in(cls, terms: Terms):
        number = terms.settings.get("number")
        return (
            None
            if isinstance(number, int) and number > 0
            else f"settings.number is {number!r}, expected a count from 1"
        )

    def init(self, batch: int):
        return jnp.zeros((batch,), jnp.int32)

    def decide(self, state, tokens, signals, boundary, valid, closes=None):
        seen = state[:, None] + jnp.cumsum(boundary & valid, axis=1, dtype=jnp.int32)
        return first_column(boundary & valid & (seen >= self.number)), jnp.zeros((*tokens.shape, 0), jnp.float32)

    def commit(self, state, tokens, signals, boundary, valid, count):
        kept = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :] < count[:, None]
        return state + jnp.sum(boundary & valid & kept, axis=1, dtype=jnp.int32)


FILE = PolicyFile(
    "nth", "none", ("paragraph",), (0.5, 0.5, 100.0), None, 0.0, None, "dev", 4, "digest", settings={"number": 2}
)


@pytest.fixture(autouse=True)
def table(monkeypatch):
    monkeypatch.setitem(POLICIES, "nth", Nth)


def test_a_file_holds_it_with_its_settings(tmp_path):
    path = tmp_path / "policy.json"
    save_policy(path, FILE)
    assert json.loads(path.read_text())["settings"] == {"number": 2} and load_policy(path) == FILE
    assert isinstance(load_policy(path).policy(), Nth) and not runs_alone("nth")
    with pytest.raises(ValueError, match=r"settings.number is 0, expected a count from 1"):
        save_policy(path, dataclasses.replace(FILE, settings={"number": 0}))
    with pytest.raises(ValueError, match="this rule has no settings, but the file has number"):
        save_policy(path, dataclasses.replace(FILE, rule="default"))
    with pytest.raises(ValueError, match="Unknown exit rule 'nht': choose 'default' or 'released' or 'nth'"):
        runs_alone("nht")


def test_the_loop_exits_by_it():
    requests = Requests.random(8, 1)
    limits = np.minimum(requests.prompt_length + 30, 40).astype(np.int32)
    requests = dataclasses.replace(requests, thinking=np.ones(8, bool), max_length=limits)
    policy, exits = FILE.policy(), 0
    result = run(tiny_spec(0), tiny_params(), requests.rows(), policy, boundary_table())
    for row, start in enumerate(requests.prompt_length):
        end = int(result.exit_position[row])
        if end < 0:
            continue
        thought = np.asarray(result.tokens[row, start:end])
        assert np.isin(thought, BOUNDARIES).sum() == 2 and thought[-1] in BOUNDARIES
        exits += 1
    assert exits >= 3 and result.exit_signals.shape == (8, 0)


def test_every_row_of_both_tables_is_whole():
    for rule in ("default", "released"):
        policy = POLICIES[rule].of(Terms(FILE.signals, FILE.thresholds, "ewma"))
        assert policy.signals == FILE.signals and "ewma" in policy.smoothings() and policy.exits and not policy.on_trial
    assert [name for name, row in METHODS.items() if row.policy is None] == ["specexit", "probe"]
