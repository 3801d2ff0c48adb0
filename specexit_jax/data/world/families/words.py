"""Word problems (reasoning-gym `gsm_symbolic`) with their own step-by-step solutions, worked out digit by digit."""

import dataclasses
import re

from specexit_jax.data.world.families.scratch import CannotWork, Scratch

# Templates whose own solutions are whole-number steps with one-digit factors; the others need decimals or long products.
TEMPLATES = (6, 10, 16, 20, 31, 39, 43, 48, 58, 72)
_OPERAND = r"[€$£]?\d+"
_UNIT = r"(?: ?[a-z/]+){0,2}"
_EQUATION = re.compile(rf"({_OPERAND}{_UNIT}(?: ?[+\-x*/] ?{_OPERAND}{_UNIT})+) ?= ?[€$£]?(\d+)")
_OPERATION = {"+": Scratch.add, "-": Scratch.subtract, "*": Scratch.multiply, "/": Scratch.divide}


@dataclasses.dataclass(frozen=True)
class Step:
    """One line of the solution: words before, operands and operators, words after."""

    before: str
    operands: tuple[int, ...]
    operators: tuple[str, ...]
    after: str
    value: int


def parse(entry: dict) -> list[Step]:
    """The solution's lines as steps; a line that this world does not write out leaves the problem outside."""
    steps = []
    for line in entry["metadata"]["answer_cot"].split("\n"):
        if line.startswith("####"):
            break
        match = _EQUATION.search(line)
        if match is None or line.count("=") != 1:
            raise CannotWork("a line without a single equation")
        # "3 boys/girl" is a unit, not a division: operators stand before a number
        operators = [op.replace("x", "*") for op in re.findall(r"([+\-x*/]) ?[€$£]?(?=\d)", match.group(1))]
        operands = [int(n) for n in re.findall(r"\d+", match.group(1))]
        if len(operands) != len(operators) + 1:
            raise CannotWork("an expression of another form")
        value = int(match.group(2))
        after = line[match.end() :].rstrip(".")
        step = Step(line[: match.start()], tuple(operands), tuple(operators), after, value)
        if _work(step, step.operands, Scratch())[1] != value:
            raise CannotWork("the line's own value is another")
        steps.append(step)
    if not steps or str(steps[-1].value) != entry["answer"]:
        raise CannotWork("the last step is not the answer")
    return steps


def _work(step: Step, operands: tuple[int, ...], scratch: Scratch) -> tuple[str, int]:
    """Left to right; several operations are written with commas between."""
    value, texts = operands[0], []
    for operator, operand in zip(step.operators, operands[1:], strict=True):
        text, value = _OPERATION[operator](scratch, value, operand)
        texts.append(text)
    return ", ".join(texts), value


def _run(steps: list[Step], scratch: Scratch, words: bool) -> tuple[list[str], str]:
    """All steps; an operand that an earlier step produced is taken from that step, so a slip carries on."""
    paragraphs, found, value = [], {}, 0
    for step in steps:
        text, value = _work(step, tuple(found.get(n, n) for n in step.operands), scratch)
        found[step.value] = value
        paragraphs.append(f"{step.before}{text}{step.after}" if words else text)
    return paragraphs, str(value)


def forward(steps: list[Step], scratch: Scratch) -> tuple[list[str], str]:
    """The solution in words."""
    return _run(steps, scratch, words=True)


def numbers(steps: list[Step], scratch: Scratch) -> tuple[list[str], str]:
    """The same steps, numbers only, sums and products with their operands exchanged."""
    swapped = [
        dataclasses.replace(s, operands=s.operands[::-1]) if set(s.operators) in ({"+"}, {"*"}) else s for s in steps
    ]
    paragraphs, answer = _run(swapped, scratch, words=False)
    return ["Numbers only. " + paragraphs[0], *paragraphs[1:]], answer


def undo(steps: list[Step], scratch: Scratch, answer: str) -> tuple[list[str], bool]:
    """The steps before the last, then the last one undone from the answer."""
    paragraphs, last, value = [], steps[-1], int(answer)
    if len(steps) > 1:
        paragraphs, _ = _run(steps[:-1], scratch, words=False)
    texts, inverse = [], {"+": "-", "-": "+", "*": "/", "/": "*"}
    for operator, operand in zip(last.operators[::-1], last.operands[:0:-1], strict=True):
        text, value = _OPERATION[inverse[operator]](scratch, value, operand)
        texts.append(text)
    paragraphs.append(f"Back from {answer}: {', '.join(texts)}, and it was {last.operands[0]}")
    return paragraphs, value == last.operands[0]


METHODS = (forward, numbers)
INVERSES = (undo,)
