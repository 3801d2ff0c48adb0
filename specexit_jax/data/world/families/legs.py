"""Counting legs (reasoning-gym `leg_counting`): animal by animal, from the last, and taking legs away from the answer."""

from specexit_jax.data.world.families.scratch import Scratch

CONFIG = {"min_animals": 2, "max_animals": 3, "min_instances": 1, "max_instances": 9}


def parse(entry: dict) -> list[tuple[str, int, int]]:
    """(animal, how many, legs each) in the order of the question."""
    from reasoning_gym.arithmetic.leg_counting import ANIMALS  # slow to import: see tasks.py

    return [(name, count, ANIMALS[name]) for name, count in entry["metadata"]["animals"].items()]


def _sum(herd: list[tuple[str, int, int]], scratch: Scratch) -> tuple[list[str], str]:
    total, paragraphs = None, []
    for name, count, legs in herd:
        text, value = scratch.multiply(legs, count)
        text = f"{name}: {text}"
        if total is None:
            total = value
        else:
            plus, total = scratch.add(total, value)
            text += f", {plus}"
        paragraphs.append(text)
    return paragraphs, str(total)


def forward(herd: list[tuple[str, int, int]], scratch: Scratch) -> tuple[list[str], str]:
    """In the order of the question, with a running total."""
    return _sum(herd, scratch)


def backward(herd: list[tuple[str, int, int]], scratch: Scratch) -> tuple[list[str], str]:
    """From the last animal to the first."""
    paragraphs, answer = _sum(herd[::-1], scratch)
    return ["From the last one. " + paragraphs[0], *paragraphs[1:]], answer


def take_away(herd: list[tuple[str, int, int]], scratch: Scratch, answer: str) -> tuple[list[str], bool]:
    """Take each animal's legs away from the answer: nothing may be left."""
    total, paragraphs = int(answer), []
    for name, count, legs in herd:
        text, value = scratch.multiply(legs, count)
        minus, total = scratch.subtract(total, value)
        paragraphs.append(f"{name}: {text}, {minus}")
    paragraphs[0] = f"Take away from {answer}. " + paragraphs[0]
    paragraphs[-1] += f", left {total}"
    return paragraphs, total == 0


METHODS = (forward, backward)
INVERSES = (take_away,)
