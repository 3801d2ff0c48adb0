"""The questions that the bundled model was trained on: one example per task, and a test whether a prompt is such a
question.

It knows six task families of reasoning-gym, whose questions follow a few templates each. On any other prompt it writes
confident nonsense.
"""

import re

_NUMBER, _NAME, _WORD = r"\d{1,3}", r"[A-Z][a-z]+", r"[\w'-]+"
_PRICE, _WORDS = rf"[€$£]?{_NUMBER}", r"[\w' -]+"
_GSM = (
    rf"There are {_NUMBER} girls in the {_WORD}\. If there are {_NUMBER} times the number of boys in the {_WORD}, how many kids "
    rf"are in the {_WORD}\?",
    rf"{_NAME} is {_NUMBER} years old\. In {_NUMBER} years (his|her) {_WORD} {_NAME} will be {_NUMBER} times as old as {_NAME} is "
    rf"now\. How old is {_NAME} right now\?",
    rf"{_NAME} has {_NUMBER} times as many {_WORD} friends as {_NAME}\. {_NAME} has {_NUMBER} times as many friends on {_WORD} as "
    rf"{_NAME}\. If {_NAME} has {_NUMBER} friends on {_WORD}, how many {_WORD} friends does {_NAME} have\?",
    rf"{_NAME} places {_WORD} on the {_WORD}\. Each {_WORD} can hold {_NUMBER} {_WORD}\. If (he|she) has {_NUMBER} {_WORD} and "
    rf"{_NUMBER} {_WORD}, how many {_WORD} won't (he|she) be able to place on the {_WORD}\?",
    rf"{_NAME} sliced an {_WORD} into {_NUMBER} pieces\. (She|He) ate {_NUMBER} slice, (her|his) {_WORD} ate {_NUMBER} more than "
    rf"(her|him), and (her|his) {_WORD} ate {_NUMBER} more than (her|his) {_WORD}\. How many slices of {_WORD} did they all eat\?",
    rf"There are {_NUMBER} {_WORD} at {_WORDS}\. {_NUMBER} of them are girls\. On {_NAME}, {_NUMBER} {_WORD} girls and {_NUMBER} "
    rf"{_WORD} boys were absent\. How many {_WORDS} boys were at {_WORDS} on {_NAME}\?",
    rf"A {_WORD} has {_NUMBER} {_WORD}\. His {_WORD} has {_NUMBER} fewer {_WORD} than he has\. How many {_WORD} do they have "
    r"together\?",
    rf"A loaf of {_WORD} at the {_WORD} costs {_PRICE}\. {_WORD} cost {_PRICE} each\. How much more do {_NUMBER} loaves of {_WORD} "
    rf"cost than {_NUMBER} {_WORD}\?",
    rf"A {_WORD} of {_WORDS} is {_NUMBER} {_WORD} of {_WORDS}\. {_NAME} drinks {_NUMBER} {_WORD} of {_WORDS}\. If {_WORDS} has "
    rf"{_NUMBER} calories per {_WORD} how many calories did (he|she) consume\?",
    rf"A {_WORD} is made out of {_NUMBER} {_WORD} {_WORD}, {_NUMBER} times as many {_WORD} {_WORD}, and an unknown number of "
    rf"{_WORD} {_WORD}\. If there are {_NUMBER} {_WORD} in the {_WORD} in total, how many {_WORD} {_WORD} are there\?",
)
_CLAIM = r"(All|No|Some) [a-z]+ are (not )?[a-z]+"
_TEMPLATES = {
    "chain_sum": r"State the final answer to the following arithmetic problem: \d{1,2}( [+-] \d{1,2}){2} =",
    "gsm_symbolic": rf"({'|'.join(_GSM)}) Give the result as your final answer\. Do not include units\.",
    "leg_counting": r"Your task is to count how many legs there are in total when given a list of animals\. Now, how many legs are "
    r"there in total if you have [1-9] [a-z ]+(, [1-9] [a-z ]+){1,2}\?",
    "gcd": r"Find the Greatest Common Divisor \(GCD\) of these numbers: (\d\d?|100), (\d\d?|100)\. Give only the GCD as your final "
    r"answer\.",
    "family_relationships": rf"{_NAME} is married to {_NAME}\. They have a child called {_NAME}\. {_NAME} is married to {_NAME}\.( "
    rf"They have a child called {_NAME}\.)? (What is {_NAME} to {_NAME}\? Respond only with the word that describes their "
    rf"relationship\.|How is {_NAME} related to {_NAME}\? Provide the relationship in one word\.|What relation is {_NAME} to "
    rf"{_NAME}\? Answer with a single word\.)",
    "syllogism": rf"Consider these statements: 1\. {_CLAIM} 2\. {_CLAIM} Does it logically follow that: {_CLAIM}\? \(Answer Yes or "
    r"No\)",
}
_PATTERNS = {task: re.compile(template) for task, template in _TEMPLATES.items()}

# One of each task's test split, which launch.generate answers right with its default seed.
EXAMPLES = {
    "chain_sum": "State the final answer to the following arithmetic problem: 34 + 63 - 87 =",
    "gsm_symbolic": "A tower is made out of 4 black cubes, 2 times as many white cubes, and an unknown number of purple cubes. If "
    "there are 15 cubes in the tower in total, how many purple cubes are there? Give the result as your final answer. Do not "
    "include units.",
    "leg_counting": "Your task is to count how many legs there are in total when given a list of animals.\n\nNow, how many "
    "legs are there in total if you have 3 sheeps, 5 deers, 4 lions?",
    "gcd": "Find the Greatest Common Divisor (GCD) of these numbers: 88, 40. Give only the GCD as your final answer.",
    "family_relationships": "Robert is married to Nova. They have a child called Jayden. Jayden is married to Abigail. They have a "
    "child called Charlotte.\n\nWhat relation is Abigail to Charlotte? Answer with a single word.",
    "syllogism": "Consider these statements:\n1. All insects are cats\n2. No cats are birds\n\nDoes it logically follow that:\nNo "
    "insects are birds?\n(Answer Yes or No)",
}


def task_of(prompt: str) -> str | None:
    """The task whose question a prompt is, ignoring white space; None if it is none."""
    words = " ".join(prompt.split())
    return next((task for task, pattern in _PATTERNS.items() if pattern.fullmatch(words)), None)
