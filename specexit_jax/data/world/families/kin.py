"""Family relations (reasoning-gym `family_relationships`): the path from one person, from the other, and what the word means.

Every method first numbers the people in the order of the story: two numbers then name a relation, where two names would
ask a small model to walk the story in its head.
"""

import dataclasses
import functools
import re

from specexit_jax.data.world.families.scratch import CannotWork, Scratch

CONFIG = {"min_family_size": 4, "max_family_size": 5}
_WORDS = {
    "spouse": ("wife", "husband"), "parent": ("mother", "father"), "child": ("daughter", "son"),
    "grandparent": ("grandmother", "grandfather"), "sibling": ("sister", "brother"),
    "grandchild": ("niece", "nephew"), "in-law": ("mother-in-law", "father-in-law"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Family:
    """The story's people in its order, its facts, and the question: what is `first` to `second`?"""

    first: str
    second: str
    people: tuple[str, ...]
    spouse: dict[str, str]
    parents: dict[str, tuple[str, str]]


def parse(entry: dict) -> Family:
    """Read the couples and their children from the story."""
    spouse, parents, couple = {}, {}, None
    for sentence in re.split(r"(?<=\.) ?", entry["question"].split("\n\n")[0]):
        if match := re.fullmatch(r"(\S+) is married to (\S+)\.", sentence):
            couple = match.groups()
            spouse |= {couple[0]: couple[1], couple[1]: couple[0]}
        elif match := re.fullmatch(r"They have (?:a child|children) called (.+)\.", sentence):
            parents |= dict.fromkeys(re.split(r", | and ", match.group(1)), couple)
    story = entry["question"]
    people = tuple(sorted({*spouse, *parents}, key=lambda name: re.search(rf"\b{name}\b", story).start()))
    return Family(entry["metadata"]["person1"], entry["metadata"]["person2"], people, spouse, parents)


def _path(family: Family) -> tuple[str, list[str], str]:
    """(kind of relation, the facts that show it, the person whose gender names it).

    No fact begins with a name: a name behind a space is one token everywhere, and copying it is then one step.
    """
    a, b, spouse, parents = family.first, family.second, family.spouse, family.parents

    def child(c):
        return f"The parents of {c} are {parents[c][0]} and {parents[c][1]}"

    def married(p):
        return f"The spouse of {p} is {spouse[p]}"

    if a in parents.get(b, ()):
        return "parent", [child(b)], a
    if b in parents.get(a, ()):
        return "child", [child(a)], a
    if spouse.get(a) == b:
        return "spouse", [married(a)], a
    if a in parents and parents.get(a) == parents.get(b):
        return "sibling", [child(a), child(b)], a
    for parent in parents.get(b, ()):
        if a in parents.get(parent, ()):
            return "grandparent", [child(b), child(parent)], a
    for parent in parents.get(a, ()):
        if b in parents.get(parent, ()):
            raise CannotWork("the data set has no word for a grandchild")
    if a in spouse and b in parents.get(spouse[a], ()):
        return "in-law", [married(a), child(spouse[a])], b
    raise CannotWork("the relation is not in this world")


def _places(family: Family) -> str:
    """Everybody's number, then the two who are asked about."""
    number = {name: place for place, name in enumerate(family.people, 1)}
    numbered = ", ".join(f"{name} {place}" for name, place in number.items())
    asked = f"{family.first} {number[family.first]} to {family.second} {number[family.second]}"
    return f"People: {numbered}, and we want {asked}"


@functools.cache
def _women() -> frozenset[str]:
    from reasoning_gym.graphs.family_relationships import FamilyRelationshipsConfig  # slow to import: see tasks.py

    return frozenset(FamilyRelationshipsConfig().female_names)


def _word(kind: str, person: str, scratch: Scratch) -> tuple[str, str]:
    woman, man = _WORDS[kind]
    right, wrong = (woman, man) if person in _women() else (man, woman)
    word = scratch.choose(right, wrong, kind in ("in-law", "grandparent"))
    return f"{person} is a {'woman' if word == woman else 'man'}", word


def forward(family: Family, scratch: Scratch) -> tuple[list[str], str]:
    """The people, the facts from the first person on, then the gender; a slip takes the wrong gender."""
    kind, facts, person = _path(family)
    gender, word = _word(kind, person, scratch)
    return [_places(family), *facts, f"That is a {kind}, and {gender}"], word


def backward(family: Family, scratch: Scratch) -> tuple[list[str], str]:
    """The people, the facts from the other end, and the gender last."""
    kind, facts, person = _path(family)
    gender, word = _word(kind, person, scratch)
    return [f"From the other end. {_places(family)}", *facts[::-1], f"So {gender} and a {kind}"], word


def meaning(family: Family, scratch: Scratch, answer: str) -> tuple[list[str], bool]:
    """What the stated word asks for, held against the facts."""
    kind, facts, person = _path(family)
    gender, word = _word(kind, person, scratch)
    asked = next(k for k, words in _WORDS.items() if answer in words)
    needs = "woman" if answer == _WORDS[asked][0] else "man"
    paragraphs = [
        f"A {answer} is a {asked} and a {needs}. {_places(family)}",
        f"{facts[-1]}, it is a {kind}, and {gender}",
    ]
    return paragraphs, word == answer


METHODS = (forward, backward)
INVERSES = (meaning,)
