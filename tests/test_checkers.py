"""Answers as models write them, against references as data sets hold them."""

import pytest

from specexit_jax.data.checkers import accepts


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("The answer is \\boxed{72}.", "72", True),
        ("0.5", "\\frac{1}{2}", True),
        ("\\boxed{1 + x^2}", "x^2+1", True),
        ("**Final Answer**\n\\[ \\boxed{\\dfrac{3}{4}} \\]", "$\\frac34$", True),
        ("1234", "1,234", True),
        ("So Natalia sold 48 + 24 = \\boxed{72} clips.", "The final answer is \\boxed{72}", True),
        ("The answer is \\boxed{73}.", "72", False),
        ("\\boxed{x^2-1}", "x^2+1", False),
        ("I do not know.", "72", False),
        ("I do not know.", "I do not know.", False),  # nothing was stated, so nothing agrees
    ],
)
def test_math(answer, reference, right):
    assert accepts("math", "gsm8k", answer, reference) is right


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("B", "B", True),
        ("(B)", "B", True),
        ("B. The mitochondrion", "B", True),
        ("The correct answer is **B**, since A is absurd.", "B", True),
        ("**Answer: B**", "B", True),
        ("I first took option A. The answer is \\boxed{\\text{B}}.", "B", True),
        ("Option A fails. So the answer is (C).", "C", True),
        ("The answer is A.", "B", False),
        ("A cat sat there.", "A", False),
        ("The correct option is B or C.", "B", False),
        ("b", "B", True),  # a small letter alone is one too
        ("a cat", "A", False),
    ],
)
def test_choice(answer, reference, right):
    assert accepts("choice", "arc", answer, reference) is right


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        (" Paris. ", "paris", True),
        ("\\boxed{New  York}", "new york", True),
        ("New York City", "new york", False),
        ("...", "...", False),
    ],
)
def test_text(answer, reference, right):
    assert accepts("text", "qa", answer, reference) is right


def test_the_worlds_checker_is_the_tasks_own():
    assert accepts("world", "chain_sum", "42", "42")
    assert not accepts("world", "chain_sum", "41", "42")


@pytest.mark.parametrize("checker", ["world", "math", "choice", "text", "code"])
def test_no_answer_is_never_right(checker):
    assert accepts(checker, "chain_sum", None, "1") is False


def test_an_unknown_checker_is_refused():
    with pytest.raises(ValueError, match="unknown checker 'maths': choose among world, math, choice, text, code"):
        accepts("maths", "gsm8k", "1", "1")
