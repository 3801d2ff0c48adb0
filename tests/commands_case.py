"""The commands of the pages, the configs and the docstrings, as test_commands starts them."""

import re
import shlex
from itertools import product
from pathlib import Path

from specexit_jax.evaluation.report.pages import pages_of

ROOT = Path(__file__).resolve().parent.parent
STAGES = (
    "annotate",
    "ablate",
    "benchmark",
    "calibrate",
    "drafts",
    "evaluate",
    "foresight",
    "learning_curve",
    "lm_eval",
    "rollout",
    "train",
)
OTHERS = ("chat", "export", "generate", "pages", "plan", "serve", "smollm2")
LINE = re.compile(r"python -m launch|bash launch|sbatch|TPU=")
# What stands for a value in a synopsis, and what an ellipsis stands for.
VALUES = {"FOLDER": "runs/one", "FOLDER-OR-HUB-NAME": "runs/one", "TARGET": "runs/one", "N": "2"}
LEFT_OUT = {"--config": "configs/embedded.py", "--method": "specexit", "--methods": "think,eagle3", "--tasks": "gcd"}


def texts() -> list[str]:
    """Where commands stand: documents, and the docstrings of configs and entry points."""
    modules = [
        path for folder in ("configs", "launch", "specexit_jax") for path in sorted((ROOT / folder).rglob("*.py"))
    ]
    docstrings = [path.read_text().split('"""')[1:2] for path in modules]
    return [path.read_text() for path in pages_of(ROOT)] + [text for found in docstrings for text in found]


def commands_of(text: str) -> list[str]:
    """`launch.NAME --flag…` of lines and of words in backticks, each of the shell's variables put in; continued lines are joined,
    comments cut."""
    values: dict[str, list[str]] = {}
    for name, value in re.findall(r'(?:^|; )([A-Z])=("[^"]*"|[^\s;]+)', text, re.M):
        values.setdefault(name, []).append(value.strip('"'))
    joined = re.sub(r"\n {4,}(?=\[?--)", " ", re.sub(r"\\\n\s*", " ", text))
    lines = [re.split(r"\s#", line.strip())[0] for line in joined.splitlines()]
    quoted = re.findall(r"(?<!`)`((?:[A-Z_]+=\S+ )*(?:python -m |bash |sbatch [^`]*)?launch[^`]+)`(?!`)", text)
    found = []
    for line in [line for line in lines if LINE.match(line)] + [" ".join(words.split()) for words in quoted]:
        if match := re.search(r"launch\.\w+ .*--.*|(?<=python -m )launch\.\w+$", line):
            used = sorted(set(re.findall(r"\$([A-Z])\b", match[0])))
            for chosen in product(*(values[name] for name in used)):
                put = dict(zip(used, chosen, strict=True))
                found.append(re.sub(r"\$([A-Z])\b", lambda name, put=put: put[name[1]], match[0]))
    return found


def arguments_of(command: str, folder: Path) -> tuple[str, list[str]]:
    """The entry point and its flags: brackets opened, the first of alternatives, our own folders; what a synopsis leaves out."""
    name, *words = shlex.split(re.sub(r"[\[\]]", " ", command))
    name, given = name.removeprefix("launch."), {}
    for word in words:
        flag, _, value = word.partition("=")
        if flag.startswith("-"):
            value = VALUES.get(value, LEFT_OUT.get(flag, "runs/one") if value in ("…", "a,b") else value).partition(
                "|"
            )[0]
            given[flag] = f"={value}" if "=" in word else ""
    if "--out" in given:
        given["--out"] = f"={folder}/out"
    for flag in ("--config.ablate.draft", "--other"):
        if flag in given:
            given[flag] = f"={folder}/work"
    if name in STAGES and not {"--preset", "--compile_only", "--annotation"} & given.keys():
        given = {"--config": "=configs/embedded.py"} | given | {"--workdir": f"={folder}/work"}
    if name == "generate" and not {"--prompt", "--prompt_ids", "--prompts", "--example"} & given.keys():
        given["--prompt"] = "=Hi"
    return name, [flag + value for flag, value in given.items()]


# Beside `launch` commands: what runs in the last of COMMANDS, what made the environment of this run and this run itself, and the
# harness's own command line (test_commands).
ELSEWHERE = (
    "bash launch/demo.sh", "bash launch/test.sh", "python -m venv", "pip install -r", "python -m pytest", "python -c",
)  # fmt: skip


def shell_lines(text: str) -> list[str]:
    """Of the shell on a page: joined where they are continued, without comments and assignments."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
    joined = "\n".join(re.sub(r"\\\n\s*", " ", block) for block in blocks)
    lines = [re.split(r"\s#", line.strip())[0] for line in joined.splitlines()]
    return [line for line in lines if line and not re.fullmatch(r"([A-Z]=(\"[^\"]*\"|\S+)(; )?)+", line)]
