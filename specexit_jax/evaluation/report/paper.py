"""The paper's own table (arXiv 2509.24248): accuracy in %, generated tokens and latency, as printed there."""

import re

METHODS = ("think", "nothink", "deer", "eagle3", "specexit")
BENCHMARKS = ("gsm8k", "math500", "aime", "humaneval_plus", "gpqa_diamond", "arc_challenge")

Cell = tuple[float, int, float]  # accuracy, tokens, latency

# model -> method -> a cell for each of BENCHMARKS
ROWS: dict[str, dict[str, tuple[Cell, ...]]] = {
    "Qwen3-4B-Thinking-2507": {
        "think": ((95.3, 1414, 155.6), (96.6, 6719, 530.1), (86.7, 19577, 243.3),
                  (90.9, 5079, 175.3), (68.7, 9041, 325.8), (95.6, 1812, 156.5)),
        "nothink": ((95.2, 1631, 204.2), (96.6, 6395, 488.5), (86.7, 19816, 243.2),
                    (88.4, 4480, 131.5), (67.2, 8833, 276.8), (95.1, 1889, 159.8)),
        "deer": ((94.3, 960, 230.3), (94.4, 4893, 519.6), (70.0, 17838, 218.6),
                 (86.6, 4079, 242.4), (67.2, 9053, 505.2), (94.6, 1011, 200.3)),
        "eagle3": ((94.8, 1408, 140.3), (96.6, 6670, 395.7), (80.0, 19792, 187.3),
                   (87.2, 5178, 81.7), (67.7, 8975, 212.2), (95.7, 1822, 164.2)),
        "specexit": ((93.8, 649, 75.8), (96.8, 4777, 367.9), (90.0, 17769, 206.1),
                     (89.6, 4319, 58.4), (68.7, 7011, 137.0), (94.5, 588, 71.4)),
    },
    "DeepSeek-R1-Distill-Llama-8B": {
        "think": ((76.4, 1008, 629.4), (81.8, 6878, 857.1), (36.7, 22170, 307.0),
                  (74.4, 6287, 445.5), (43.6, 8857, 574.0), (49.9, 1917, 628.5)),
        "nothink": ((54.6, 233, 22.2), (55.2, 1643, 262.8), (10.0, 8744, 184.1),
                    (46.3, 472, 7.3), (26.8, 1200, 166.6), (12.6, 135, 13.6)),
        "deer": ((74.7, 710, 484.8), (80.8, 3533, 973.3), (40.0, 15619, 272.3),
                 (79.3, 4206, 269.2), (40.9, 8492, 521.5), (47.5, 1029, 531.3)),
        "eagle3": ((79.3, 976, 276.9), (80.8, 6172, 593.6), (30.0, 25686, 228.1),
                   (78.7, 5312, 346.5), (43.9, 8749, 420.1), (59.2, 1378, 496.4)),
        "specexit": ((75.3, 333, 112.6), (80.6, 1968, 348.3), (36.7, 8160, 176.0),
                     (81.7, 3105, 118.1), (46.0, 6849, 307.5), (50.3, 500, 253.7)),
    },
}  # fmt: skip


def models_for(target: str | None) -> tuple[str, ...]:
    """The paper's models to print beside a target of this name: its own rows where it is one of them, else all."""
    name = _plain(target or "")
    return tuple(model for model in ROWS if _plain(model) in name) or tuple(ROWS)


def benchmark_of(task: str) -> str | None:
    """The paper's benchmark that a task is; a year after AIME's name is passed over, for the paper names none."""
    name = re.sub(r"[_-]?(20)?2[0-9]$", "", task) if task.startswith("aime") else task
    return name if name in BENCHMARKS else None


def cell(model: str, method: str, task: str) -> Cell | None:
    """What the paper prints; None for a task or a method that it has not."""
    benchmark = benchmark_of(task)
    if benchmark is None or method not in METHODS:
        return None
    return ROWS[model][method][BENCHMARKS.index(benchmark)]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
