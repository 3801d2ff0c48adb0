"""Syllogisms (reasoning-gym `syllogism`): the classical rules in two orders, and the rules that the answer would need."""

import dataclasses
import re

from specexit_jax.data.world.families.scratch import Scratch

CONFIG: dict = {}
_NEGATIVE, _UNIVERSAL = {"no", "some not"}, {"all", "no"}
_SPREAD = {"all": (True, False), "no": (True, True), "some": (False, False), "some not": (False, True)}


@dataclasses.dataclass(frozen=True)
class Statement:
    """Quantifier (all, no, some, some not), subject, predicate."""

    quantifier: str
    subject: str
    predicate: str


@dataclasses.dataclass(frozen=True)
class Syllogism:
    """Two premises and a conclusion; `turned` names the premise (1 or 2) that an inversion problem turns around."""

    premises: tuple[Statement, Statement]
    conclusion: Statement
    turned: int | None


def _statement(text: str) -> Statement:
    quantifier, subject, negation, predicate = re.fullmatch(r"(All|No|Some) (\w+) are (not )?(\w+)", text).groups()
    return Statement(quantifier.lower() + (" not" if negation else ""), subject, predicate)


def parse(entry: dict) -> Syllogism:
    """Read premises and conclusion; an inversion problem is one whose conclusion has both terms of one premise."""
    meta = entry["metadata"]
    premises, conclusion = (_statement(meta["premise1"]), _statement(meta["premise2"])), _statement(meta["conclusion"])
    turned = meta.get("selected_premise") if meta["type"] == "inversion" else None
    return Syllogism(premises, conclusion, turned)


def _rules(problem: Syllogism) -> list[tuple[str, bool]]:
    """(text of the rule at work, is it kept) for each rule that decides this problem."""
    c = problem.conclusion
    if problem.turned is not None:
        p = problem.premises[problem.turned - 1]
        gives = {"all": "some", "no": "no", "some": "some"}.get(p.quantifier, "nothing")
        swapped = (p.subject, p.predicate) == (c.predicate, c.subject)
        place = f"Both terms stand in premise {problem.turned}"
        return [(f"{place}, {'turned around' if swapped else 'as they are'}", swapped),
                (f"Turned around, {p.quantifier} gives {gives}, we want {c.quantifier}", gives == c.quantifier)]  # fmt: skip
    negatives = sum(p.quantifier in _NEGATIVE for p in problem.premises)
    particulars = sum(p.quantifier not in _UNIVERSAL for p in problem.premises)
    negative, universal = c.quantifier in _NEGATIVE, c.quantifier in _UNIVERSAL
    rules = [
        (f"Negatives: {negatives} above, {int(negative)} below", negatives == int(negative)),
        (f"Particulars: {particulars} above, {int(not universal)} below",
         particulars < 2 and not (universal and particulars)),
    ]  # fmt: skip
    for place, term in enumerate((c.subject, c.predicate)):
        premise = next((p for p in problem.premises if term in (p.subject, p.predicate)), None)
        if premise is None:
            return [(f"{term} is in no premise", False)]
        if _SPREAD[c.quantifier][place]:
            spread = _SPREAD[premise.quantifier][0 if premise.subject == term else 1]
            rules.append((f"All {term} are meant below, {'all' if spread else 'not all'} above", spread))
    return rules


def _form(problem: Syllogism) -> str:
    """The quantifiers, and the premises that each term of the conclusion stands in."""
    (first, second), c = problem.premises, problem.conclusion

    def stands(term):
        return " ".join(str(n) for n, p in enumerate(problem.premises, 1) if term in (p.subject, p.predicate))

    places = f"{c.subject} in {stands(c.subject)}, {c.predicate} in {stands(c.predicate)}"
    return f"Forms: {first.quantifier}, {second.quantifier}, so {c.quantifier}, {places}"


def _judge(rules: list[tuple[str, bool]], scratch: Scratch) -> tuple[list[str], str]:
    """Judge the rules one by one; a slip sees the wrong thing once."""
    kept, texts = True, []
    for text, keeps in rules:
        verdict = scratch.choose("fine" if keeps else "broken", "broken" if keeps else "fine", text.startswith("All"))
        texts.append(f"{text}, {verdict}")
        kept = kept and verdict == "fine"
    return texts, "Yes" if kept else "No"


def forward(problem: Syllogism, scratch: Scratch) -> tuple[list[str], str]:
    """The forms, then the rules in order."""
    texts, answer = _judge(_rules(problem), scratch)
    return [_form(problem), *texts], answer


def backward(problem: Syllogism, scratch: Scratch) -> tuple[list[str], str]:
    """The rules from the last to the first."""
    texts, answer = _judge(_rules(problem)[::-1], scratch)
    return ["Rules from the last. " + texts[0], *texts[1:]], answer


def needs(problem: Syllogism, scratch: Scratch, answer: str) -> tuple[list[str], bool]:
    """Yes needs every rule kept, No needs one broken."""
    texts, found = _judge(_rules(problem), scratch)
    broken = sum(text.endswith("broken") for text in texts)
    asked = "no broken rule" if answer == "Yes" else "a broken rule"
    return [f"{answer} needs {asked}. {texts[0]}", *texts[1:], f"Broken: {broken}"], found == answer


METHODS = (forward, backward)
INVERSES = (needs,)
