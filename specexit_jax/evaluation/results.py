"""`results.json` from records: a summary for each method and task, comparisons of methods over the same problems."""

from collections.abc import Iterable, Sequence

import numpy as np

from specexit_jax.evaluation import statistics
from specexit_jax.evaluation.records import Record, one_per_problem

# the order of tables and legends; other methods come last
METHODS = (
    "think", "nothink", "first_answer", "deer", "deer_eagle3", "eagle3", "probe", "specexit", "ceiling", "oracle",
)  # fmt: skip
_AVERAGED = (
    "tokens_median", "thinking_tokens_mean", "trial_tokens_mean", "latency_s_mean", "tau_mean", "exit_rate",
    "unfinished_rate",
)  # fmt: skip


def build_results(
    records: Iterable[Record], device: str, git_revision: str, versions: dict[str, str], extra: dict | None = None
) -> dict:
    """The tree of `results.json`; `extra` adds sections of its own beside `methods`.

    Raises ValueError when there is no record, or `extra` would overwrite a section.
    """
    records = one_per_problem(records)
    if not records:
        raise ValueError("no records: nothing was evaluated, so there are no results to write")
    methods = {}
    for method in in_order({r.method for r in records}):
        own = [r for r in records if r.method == method]
        tasks = {task: summarise([r for r in own if r.task == task]) for task in sorted({r.task for r in own})}
        methods[method] = {"tasks": tasks, "overall": average(list(tasks.values()))}
    results = {"methods": methods, "device": device, "git_revision": git_revision, "versions": dict(versions)}
    if clash := sorted(set(results) & set(extra or {})):
        raise ValueError(f"extra sections {clash} would overwrite results of the same name")
    return results | (extra or {})


def in_order(methods: Iterable[str]) -> list[str]:
    rank = {method: i for i, method in enumerate(METHODS)}
    return sorted(methods, key=lambda method: (rank.get(method, len(rank)), method))


def summarise(records: Sequence[Record]) -> dict:
    """The keys of `methods.<method>.tasks.<task>` for the records of one method on one task.

    n counts problems; several seeds of a problem are averaged before any interval, for they are not independent
    (`statistics.share`: seeds that all say the same give the interval that one of them gives).
    tau_mean pools verify steps (bonus token counted); null without drafts. latency_s_mean is over the `latency_n`
    records that were timed.
    """
    problems = sorted({r.problem for r in records})
    seeds = {r.seed for r in records}
    accuracy = statistics.share(_by_problem(records, "correct"))
    tokens = statistics.mean_interval(_by_problem(records, "tokens"))
    latencies = [r.latency_s for r in records if r.latency_s is not None]
    return {
        "n": len(problems),
        "seeds": len(seeds),
        "accuracy": accuracy.value,
        "accuracy_ci95": [accuracy.low, accuracy.high],
        "tokens_mean": tokens.value,
        "tokens_ci95": [tokens.low, tokens.high],
        "tokens_median": float(np.median([r.tokens for r in records])),
        "thinking_tokens_mean": float(np.mean([r.thinking_tokens for r in records])),
        "trial_tokens_mean": float(np.mean([r.trial_tokens for r in records])),
        "latency_s_mean": float(np.mean(latencies)) if latencies else None,
        "latency_n": len(latencies),
        "tau_mean": tau(histogram(records)),
        "exit_rate": float(np.mean([r.exited for r in records])),
        "unfinished_rate": float(np.mean([r.finish == "length" for r in records])),
        "decoded_n": sum(r.source == "decode" for r in records),
    }


def average(tasks: Sequence[dict]) -> dict:
    """The same keys averaged over tasks (every task weighs alike); counts are summed, unmeasured tasks left out."""
    overall = {key: sum(task[key] for task in tasks) for key in ("n", "latency_n", "decoded_n")}
    overall["seeds"] = min(task["seeds"] for task in tasks)
    for value, interval in (("accuracy", "accuracy_ci95"), ("tokens_mean", "tokens_ci95")):
        estimate = statistics.mean_of_estimates([statistics.Estimate(t[value], *t[interval]) for t in tasks])
        overall |= {value: estimate.value, interval: [estimate.low, estimate.high]}
    for key in _AVERAGED:
        known = [task[key] for task in tasks if task[key] is not None]
        overall[key] = float(np.mean(known)) if known else None
    return {key: overall[key] for key in tasks[0]}


def histogram(records: Iterable[Record]) -> np.ndarray:
    """Pooled acceptance histogram, int64[K + 1]; empty when nothing was decoded."""
    rows = [r.accepted for r in records if r.accepted]
    pooled = np.zeros(max((len(row) for row in rows), default=0), np.int64)
    for row in rows:
        pooled[: len(row)] += np.asarray(row, np.int64)
    return pooled


def tau(accepted: np.ndarray) -> float | None:
    """Tokens per verify step, bonus token counted; None without drafts or steps."""
    if len(accepted) < 2 or accepted.sum() == 0:
        return None
    return float((np.arange(len(accepted)) + 1) @ accepted / accepted.sum())


def compare(records: Iterable[Record], method: str, baseline: str) -> dict:
    """A method against a baseline over the problems both have: differences paired, stratified by task.

    accuracy_difference = method - baseline; tokens_ratio = method / baseline; speedup = baseline / method latency
    over the problems timed under both (null without any); pairs, and of them harmed (baseline right and method wrong) and
    mended (the reverse), count every seed; mcnemar_p is of problems, each one's seeds averaged (`statistics.sign_flips`).
    """
    first, second = (_by_key(records, name) for name in (method, baseline))
    shared = sorted(set(first) & set(second))
    if not shared:
        raise ValueError(f"{method} and {baseline} share no problem: evaluate both on the same tasks and split")
    harmed = sum(second[key].correct and not first[key].correct for key in shared)
    mended = sum(first[key].correct and not second[key].correct for key in shared)
    timed = [key for key in shared if first[key].latency_s is not None and second[key].latency_s is not None]
    columns = [first, second]
    correct = _strata(columns, shared, "correct")
    return {
        "method": method,
        "baseline": baseline,
        "pairs": len(shared),
        "problems": sum(len(stratum) for stratum in correct),
        "accuracy_difference": _plain(statistics.paired_difference(correct)),
        "tokens_ratio": _plain(statistics.paired_ratio(_strata(columns, shared, "tokens"))),
        "speedup": _plain(statistics.paired_ratio(_strata(columns[::-1], timed, "latency_s"))) if timed else None,
        "timed_pairs": len(timed),
        "harmed": harmed,
        "mended": mended,
        "mcnemar_p": statistics.sign_flips(np.concatenate(correct) @ [1.0, -1.0]),
    }


def shares(records: Iterable[Record], method: str, baseline: str = "eagle3") -> dict:
    """The saving of a method relative to the bounds: saving(m) = mean tokens(baseline) - mean tokens(m), over the
    problems that all have, with share_of_ceiling and share_of_oracle (null if that bound was not evaluated)."""
    records = list(records)
    shown = {}
    for bound in ("ceiling", "oracle"):
        tables = [_by_key(records, name) for name in (baseline, method, bound)]
        shared = sorted(set.intersection(*(set(table) for table in tables)))
        if not shared:
            shown |= {f"share_of_{bound}": None, f"saving_of_{bound}": None}
            continue
        strata = _strata(tables, shared, "tokens")
        share = statistics.stratified_estimate(strata, lambda m: (m[:, 0] - m[:, 1]) / (m[:, 0] - m[:, 2]))
        means = np.mean([stratum.mean(axis=0) for stratum in strata], axis=0)
        shown |= {
            "saving": float(means[0] - means[1]),
            f"saving_of_{bound}": float(means[0] - means[2]),
            f"share_of_{bound}": _plain(share),
        }
    return {"method": method, "baseline": baseline} | shown


def _by_problem(records: Sequence[Record], field: str) -> np.ndarray:
    """The field averaged over the seeds of each problem, float64[problems]."""
    values = np.asarray([getattr(record, field) for record in records], np.float64)
    return statistics.by_problem(values, [record.problem for record in records])


def _by_key(records: Iterable[Record], method: str) -> dict[tuple, Record]:
    return {r.key: r for r in one_per_problem(r for r in records if r.method == method)}


def _strata(tables: Sequence[dict[tuple, Record]], keys: Sequence[tuple], field: str) -> list[np.ndarray]:
    """[problems, len(tables)] a task: the field of each table, averaged over a problem's seeds."""
    columns = np.asarray([[getattr(table[key], field) for table in tables] for key in keys], np.float64)
    return statistics.strata_of(columns, [task for task, _, _ in keys], [problem for _, problem, _ in keys])


def _plain(estimate: statistics.Estimate) -> dict | None:
    """JSON form; null where the estimate is undefined."""
    if not np.isfinite(estimate.value):
        return None
    return {"value": estimate.value, "ci95": [estimate.low, estimate.high]}
