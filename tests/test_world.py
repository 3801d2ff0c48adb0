"""The reasoning world: methods of every family are right, slips are wrong, splits share no question, documents have masks."""

import itertools
import math
import random
import subprocess
import sys

import numpy as np
import pytest

from specexit_jax.data.documents import Mixture, documents
from specexit_jax.data.splits import SPLITS, problems, sample, split_of
from specexit_jax.data.tokenizer import prompt_text, train_tokenizer
from specexit_jax.data.world.families import divisor, kin
from specexit_jax.data.world.families.scratch import CannotWork, Scratch
from specexit_jax.data.world.tasks import FAMILIES, TASKS, check, final_answer
from specexit_jax.data.world.writer import thinking_text, write_trace


@pytest.mark.parametrize("task", TASKS)
def test_methods_are_right_and_inverses_tell_right_from_wrong(task):
    family, fits = FAMILIES[task], 0
    for problem in itertools.islice(problems(task, "development"), 60):
        parsed = family.parse(problem.entry)
        for method in family.METHODS:
            paragraphs, answer = method(parsed, Scratch())
            assert check(task, answer, problem.answer)
            assert paragraphs and all("\n" not in text for text in paragraphs)
        for inverse in family.INVERSES:
            try:
                assert inverse(parsed, Scratch(), problem.answer)[1]
                fits += 1
            except CannotWork:
                continue
    assert fits > 30


def test_a_name_is_one_token_wherever_the_family_writes_it(tokenizer):
    """A name follows a space in the question and in every paragraph, so it is one token that can be copied in one step."""
    for problem in itertools.islice(problems("family_relationships", "development"), 40):
        parsed = kin.parse(problem.entry)
        names = {parsed.first, parsed.second, *parsed.spouse, *parsed.parents}
        texts = [prompt_text(tokenizer, problem.question)]
        for method in kin.METHODS:
            texts += method(parsed, Scratch())[0]
        texts += kin.meaning(parsed, Scratch(), problem.answer)[0]
        for text in texts:
            assert all(f" {name}" in text for name in names if name in text)
            assert text.split(" ")[0] not in names


@pytest.mark.parametrize(
    ("numbers", "shared", "slipped"),
    [((12, 18), "Shared: 2 yes, 2 no, 3 yes, so 2*3=6", "Shared: 2 yes, 2 no, 3 no, so 2"),
     ((35, 12), "Shared: 5 no, 7 no, so 1", "Shared: 5 no, 7 no, so 1"), ((7, 49), "Shared: 7 yes, so 7", "Shared: 7 yes, so 7")],
)  # fmt: skip
def test_shared_factors_are_walked_and_a_slip_overlooks_one(numbers, shared, slipped):
    paragraphs, answer = divisor.factors(numbers, Scratch())
    assert paragraphs[-1] == shared and answer == str(math.gcd(*numbers))
    assert divisor.factors(numbers, Scratch(1.0, random.Random(0)))[0][-1] == slipped


@pytest.mark.parametrize(
    ("operation", "a", "b", "right"),
    [("add", 58, 67, 125), ("subtract", 100, 37, 63), ("multiply", 27, 4, 108), ("divide", 96, 4, 24)],
)
def test_operations_work_out_columns_and_slip_once(operation, a, b, right):
    text, value = getattr(Scratch(), operation)(a, b)
    assert value == right
    assert text.endswith(f"so {right}")
    slipped = Scratch(1.0, random.Random(0))
    assert getattr(slipped, operation)(a, b)[1] != right
    assert slipped.slipped
    assert getattr(slipped, operation)(a, b)[1] == right  # at most one slip


def test_easy_operations_never_slip():
    scratch = Scratch(1.0, random.Random(0))
    assert scratch.add(41, 58)[1] == 99
    assert scratch.subtract(89, 35)[1] == 54
    assert scratch.multiply(12, 3)[1] == 36
    assert not scratch.slipped


@pytest.mark.parametrize("operation", ["add", "subtract", "multiply", "divide"])
def test_operations_equal_arithmetic(operation):
    rng = random.Random(1)
    expected = {"add": int.__add__, "subtract": int.__sub__, "multiply": int.__mul__, "divide": int.__floordiv__}[
        operation
    ]
    for _ in range(500):
        a, b = rng.randrange(1000), rng.randrange(1, 11)
        if operation in ("add", "subtract"):
            b = rng.randrange(a + 1)
        if operation == "divide":
            a -= a % b
        assert getattr(Scratch(), operation)(a, b)[1] == expected(a, b)


def test_a_question_belongs_to_one_split_and_streams_repeat():
    seen: dict[str, str] = {}
    for split, task in itertools.product(SPLITS, TASKS):
        chosen = list(itertools.islice(problems(task, split), 40))
        assert [p.id for p in chosen] == [p.id for p in itertools.islice(problems(task, split), 40)]
        for problem in chosen:
            assert split_of(problem.question) == split
            assert seen.setdefault(problem.question, problem.id) == problem.id
    with pytest.raises(ValueError, match="unknown split"):
        next(problems("gcd", "validation"))
    with pytest.raises(ValueError, match="unknown task"):
        next(problems("sudoku", "test"))


def test_traces_overthink_mend_and_believe_what_they_state():
    rng, mended, wrong, first_share = random.Random(2), 0, 0, []
    for problem in sample("development", 60):
        trace = write_trace(problem.task, problem.entry, rng)
        assert trace.paragraphs[trace.stated].endswith(trace.first)
        assert len(trace.paragraphs) == len(trace.believed)
        first_right = check(problem.task, trace.first, problem.answer)
        last_right = check(problem.task, trace.answer, problem.answer)
        mended += last_right and not first_right
        wrong += not last_right
        first_share.append((trace.stated + 1) / len(trace.paragraphs))
    assert mended >= 360 * 0.04
    assert wrong <= 360 * 0.02
    assert np.mean(first_share) < 0.4


@pytest.fixture(scope="module")
def tokenizer():
    rng, texts = random.Random(3), []
    for problem in sample("development", 20):
        texts += [problem.question, thinking_text(write_trace(problem.task, problem.entry, rng)), problem.answer]
    return train_tokenizer(texts, 700)


def test_tokenizer_keeps_digits_and_paragraph_ends_apart(tokenizer):
    text = "12+345: 2+5=7 so 357.\n\nWait, ünïcode?\n"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    pieces = [tokenizer.decode([i]) for i in ids]
    assert ".\n\n" in pieces
    assert all(sum(c.isdigit() for c in piece) <= 1 for piece in pieces)


def test_documents_train_on_no_question_and_no_forced_end(tokenizer):
    chosen = sample("development", 3)
    full = documents(chosen, tokenizer, Mixture(mended=0.0, stopped=0.0, unthought=0.0), seed=0)
    everything = documents(chosen, tokenizer, Mixture(mended=0.0, stopped=1.0, unthought=1.0), seed=0)
    assert len(full) == len(chosen)
    assert len(everything) == 3 * len(chosen)
    end = tokenizer.convert_tokens_to_ids("</think>")
    prompt = len(tokenizer.encode(prompt_text(tokenizer, chosen[0].question)))
    _, mask = full[0]
    assert not mask[:prompt].any()
    assert mask[prompt:].all()
    silent, ends = documents(chosen, tokenizer, Mixture(mended=1.0, stopped=0.0, unthought=0.0), seed=0), []
    for (ids, mask), problem in zip(silent, chosen, strict=True):
        first = int(np.argmax(mask))  # the first token with loss opens the round after the statement
        assert first > len(tokenizer.encode(prompt_text(tokenizer, problem.question))) and mask[first:].all()
        ends.append(tokenizer.decode(ids[:first]))
    assert all("answer" in text.split("\n\n")[-2] for text in ends)
    kinds = [mask[list(ids).index(end)] for ids, mask in everything]
    assert kinds == [True, False, False] * len(chosen)  # closed by itself, stopped, never opened


def test_final_answer():
    assert final_answer("a</think>\n\n42<|end|>") == "42"
    assert final_answer("a</think>\n\n<|end|>") is None
    assert final_answer("no end 42") is None


def test_the_world_is_imported_without_its_problems():
    """Every entry point knows the names of the tasks; reasoning-gym alone takes longer to import than all of ours."""
    code = "import sys, specexit_jax.data.splits; sys.exit('reasoning_gym' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
