"""Which numbers are the same: exact ones exactly, decimals to what they write, in known units."""

import pytest

from specexit_jax.data.mathematics import same_value
from specexit_jax.data.number_words import in_digits


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("1.6e-19", "1.7e-19", False),
        ("\\frac{1}{2005!}", "\\frac{1}{2007!}", False),
        ("\\frac{2^{2005}+1}{3\\cdot 2^{2006}}", "\\frac{1}{3\\cdot 2^{2006}}", False),
        ("12345.678", "12345.679", False),
        ("0.166667", "\\frac16", True),  # six significant digits, rounded
        ("0.16667", "\\frac16", False),
        ("0.6666666", "\\frac23", True),  # seven, cut off
        ("0.666666", "\\frac23", False),
        ("0.30000000000000004", "0.3", True),  # as floating point has it
        ("3.141593", "\\pi", True),
        ("\\sqrt{2}+10^{-9}", "\\sqrt{2}", False),
        ("10^{-9}x", "10^{-8}x", False),
        ("(10^{-9}, 1)", "(10^{-8}, 1)", False),
        ("5 \\text{ km}", "5000 \\text{ m}", True),
        ("5 \\text{ km}", "5 \\text{ kg}", False),
        ("5 \\text{ zorks}", "5", True),
        ("5zx", "5", False),
        ("18 dollars per day", "\\$18", True),
        ("(1,000)", "(1,0)", False),
        ("(1,000)", "1000", True),
        ("(1,234)", "(1, 234)", True),
    ],
)
def test_numbers(answer, reference, right):
    assert same_value(f"\\boxed{{{answer}}}", reference) is right
    assert same_value(reference, f"\\boxed{{{answer}}}") is right


@pytest.mark.parametrize(
    ("words", "digits"),
    [
        ("two hundred and five", "205"),
        ("one million two hundred thousand and three", "1200003"),
        ("two three", "two three"),
        ("twenty twenty", "twenty twenty"),
        ("a hundred", "100"),
        ("minus twelve point zero five", "-12.05"),
        ("three quarters", "3/4"),
        ("the right one", "the right one"),
        ("3 million", "3000000"),
        ("half a dozen", "6"),
        ("one hundred and " * 3000, "one hundred and " * 3000),
    ],
)
def test_number_words(words, digits):
    assert in_digits(words) == digits
