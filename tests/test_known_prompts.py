"""The bundled model's own questions are known from others."""

import pytest

from specexit_jax.data.known_prompts import EXAMPLES, task_of
from specexit_jax.data.splits import sample, split_of
from specexit_jax.data.world.tasks import TASKS


@pytest.mark.parametrize("task", TASKS)
def test_every_question_of_the_world_is_known(task):
    unknown = [p.question for p in sample("development", 120, (task,)) if task_of(p.question) != task]
    assert not unknown, unknown[0]


def test_the_examples_are_of_the_test_split_one_a_task():
    assert tuple(EXAMPLES) == TASKS
    assert {name: task_of(question) for name, question in EXAMPLES.items()} == {name: name for name in TASKS}
    assert {split_of(question) for question in EXAMPLES.values()} == {"test"}


@pytest.mark.parametrize(
    "prompt",
    [
        "What is 12 + 30 - 4?",
        "State the final answer to the following arithmetic problem: 112 + 30 - 4 =",
        "State the final answer to the following arithmetic problem: 12 + 30 =",
        "State the final answer to the following arithmetic problem: 12 * 3 - 4 =",
        "What is the capital of France?",
        "Find the Greatest Common Divisor (GCD) of these numbers: 1640, 80. Give only the GCD as your final answer.",
        "There are 26 girls in the garden. How many boys are there?",
        "Consider these statements:\n1. All cats sleep\n2. No dogs sleep\n\nDoes it logically follow that:\nNo cats are dogs?",
        EXAMPLES["gcd"] + " And why?",
        "And what of 12, 18?",
        "",
    ],
)
def test_other_questions_are_not(prompt):
    assert task_of(prompt) is None
