"""Streaming and conversations: the same tokens and text as the request decoded at once."""

import pytest

from launch.live import meter_line
from specexit_jax.engine.conversation import Conversation
from specexit_jax.engine.generate import generate
from specexit_jax.engine.methods import make_method, read_policy
from specexit_jax.engine.preparing import prepare
from specexit_jax.engine.requests import DecodeSettings, Request
from specexit_jax.engine.session import chat_ids, text_of
from specexit_jax.engine.streaming import Increments, stream_pieces

SHORT = DecodeSettings(max_new_tokens=12)


@pytest.fixture(scope="module")
def methods(session, tiny):
    policy = read_policy(session, tiny / "policy.json")
    return {name: make_method(session, name, *policy, draft_tokens=2) for name in ("specexit", "eagle3", "think")}


@pytest.mark.parametrize("name", ["specexit", "think"])
def test_pieces_are_the_request_decoded_at_once(session, methods, name):
    exits = 0
    for seed in range(4):
        request = Request("r", tuple(chat_ids(session, "Count the legs.")), seed)
        (whole,) = generate(session, [request], methods[name])
        pieces = list(stream_pieces(prepare(session, [request], methods[name]), steps=2))
        assert len(pieces) > 2 and all(piece.outcome is None for piece in pieces[:-1])
        assert sum((piece.ids for piece in pieces), ()) == whole.ids
        assert "".join(piece.text for piece in pieces) == text_of(session, whole.ids)
        last = pieces[-1].outcome
        assert (last.ids, last.exit, last.accepted, last.steps) == (whole.ids, whole.exit, whole.accepted, whole.steps)
        thinks = [piece.thinking for piece in pieces]
        assert thinks == sorted(thinks, reverse=True)  # only the last piece has the answer
        if whole.exit is not None:
            exits += 1
            assert pieces[-1].signals == pytest.approx(whole.exit_signals, rel=1e-4)
        assert (pieces[-1].signals is None) == (name == "think")
    assert exits >= (2 if name == "specexit" else 0)


def test_text_never_holds_half_a_character(session):
    ids = session.tokenizer.encode("é → 3*4=12.\n\n€", add_special_tokens=False)
    assert len(ids) > len("é → 3*4=12.\n\n€")  # characters of several tokens
    text, said = Increments(session), []
    for length in range(1, len(ids) + 1):
        said.append(text.upto(ids[:length], length == len(ids)))
    assert "".join(said) == text_of(session, ids)
    assert not any("\ufffd" in piece for piece in said)
    # Bytes that never become a character are given at the end.
    assert Increments(session).upto(ids[:1], True) == text_of(session, ids[:1]) != ""


def test_a_cancelled_stream_computes_nothing_more(session, methods, monkeypatch):
    request = Request("r", tuple(chat_ids(session, "Count the legs.")), 1)
    pieces = stream_pieces(prepare(session, [request], methods["eagle3"]), steps=1)
    next(pieces)
    calls = []
    monkeypatch.setattr("specexit_jax.engine.slots.Slots.run", lambda *a, **k: calls.append(a))
    pieces.close()
    assert list(pieces) == [] and not calls


@pytest.mark.parametrize("name", ["specexit", "eagle3"])
def test_a_turn_costs_its_own_tokens_and_is_what_it_is_alone(session, methods, name):
    conversation = Conversation(session, methods[name], SHORT, context=96, seed=3)
    earlier = 0
    for turn, message in enumerate(("Count the legs.", "4+4?", "3*4?")):
        outcome = conversation.ask(message)
        assert outcome.prompt_ids == tuple(chat_ids(session, conversation.messages[:-1]))
        (alone,) = generate(session, [Request(f"turn {turn}", outcome.prompt_ids, 3)], methods[name], SHORT)
        assert (alone.ids, alone.exit, alone.accepted) == (outcome.ids, outcome.exit, outcome.accepted)
        # The earlier prompt up to where the template drops the thinking, without one token that is computed again.
        kept = conversation.prompted - conversation.computed
        assert kept == 0 if not turn else kept >= earlier - 4
        earlier = len(outcome.prompt_ids)
        assert conversation.messages[-1]["content"].startswith("<think>\n")


def test_a_conversation_goes_on_after_a_cancelled_answer_and_ends_at_its_context(session, methods):
    conversation = Conversation(session, methods["eagle3"], SHORT, context=60, seed=4)
    answer = conversation.say("Count the legs.")
    text = next(answer).text
    answer.close()
    assert conversation.messages[-1] == {"role": "assistant", "content": "<think>\n" + text}
    outcome = conversation.ask("4+4?")
    (alone,) = generate(session, [Request("turn 1", outcome.prompt_ids, 4)], methods["eagle3"], SHORT)
    assert alone.ids == outcome.ids
    with pytest.raises(ValueError, match="beyond its context of 60"):
        for _ in range(9):
            conversation.ask("Count the legs of 3 dogs.")


def test_meters_are_full_at_their_ends():
    assert meter_line({"confidence": 0.0, "progress": 1.0, "remain": 4000.0}).split() == [
        "confidence", "░" * 10, "0.00", "progress", "█" * 10, "1.00", "remain", "█" * 10, "4000"
    ]  # fmt: skip
    assert "█" * 5 + "░" * 5 in meter_line({"confidence": 0.5})
