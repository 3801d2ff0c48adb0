"""Records, results.json, the tables made from them, figures and latency."""

import dataclasses
import json

import numpy as np
import pytest

from specexit_jax.annotation.replay import Replayed
from specexit_jax.evaluation import score_quality
from specexit_jax.evaluation.loop import latency
from specexit_jax.evaluation.records import (
    Record,
    one_per_problem,
    read_records,
    record_of_replay,
    record_of_trace,
    write_json,
    write_records,
)
from specexit_jax.evaluation.report import figures, scales, tables, trace_figure
from specexit_jax.evaluation.report import markdown as report
from specexit_jax.evaluation.report import style as figure_style
from specexit_jax.evaluation.report.where import BINS, exit_offsets
from specexit_jax.evaluation.results import METHODS, build_results, compare, histogram, shares, summarise, tau
from specexit_jax.exits.scales import share_text
from specexit_jax.storage.jsonl import read_jsonl


def _record(method="eagle3", task="chain", number=0, **changes) -> Record:
    fields = {
        "method": method, "task": task, "id": f"{task}-{number}", "split": "test", "correct": True, "tokens": 100,
        "thinking_tokens": 95, "exit_index": None, "exited": False, "steps": 30, "accepted": (5, 5, 10, 10),
        "answer": "7", "finish": "stop", "source": "decode", "latency_s": 0.5, "seed": 0,
    }  # fmt: skip
    return Record(**(fields | changes))


def _suite() -> list[Record]:
    """Four methods on two tasks of 40 and 10 problems; specexit is wrong on every tenth problem of 'chain'."""
    records = []
    for task, count in (("chain", 40), ("logic", 10)):
        for i in range(count):
            wrong = task == "chain" and i % 10 == 3
            shared = {"task": task, "number": i, "exit_index": 20, "exited": True}
            records += [
                _record("eagle3", task, i, tokens=100 + i),
                _record("specexit", **shared, tokens=40 + i, correct=not wrong, latency_s=0.2, accepted=(0, 0, 0, 4)),
                _record("ceiling", **shared, tokens=30 + i, source="replay", latency_s=None, accepted=(), steps=0),
                _record("oracle", **shared, tokens=20 + i, source="replay", latency_s=None, accepted=(), steps=0),
            ]
    return records


def _results() -> dict:
    records = _suite()
    extra = {
        "comparisons": [compare(records, "specexit", "eagle3")],
        "shares": [shares(records, "specexit")],
        "acceptance": {"eagle3": [1, 2, 3], "specexit": [2, 2, 2, 2]},
        "signals": {"auc": 0.912, "boundaries": 1234},
    }
    return build_results(records, "cpu", "abc1234", {"jax": "0.10.2"}, extra)


def test_records_survive_the_file(tmp_path):
    records = [
        _record(number=0, answer="½\n\u2028x"),
        _record("oracle", number=1, exited=True, exit_index=3, latency_s=None),
    ]
    write_records(tmp_path / "records.jsonl", records)
    assert list(read_jsonl(tmp_path / "records.jsonl")) == [record.to_json() for record in records]
    assert [p.name for p in tmp_path.iterdir()] == ["records.jsonl"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "results.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "results.json", {"a": float("nan")})
    assert json.loads((tmp_path / "results.json").read_text()) == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("changes", "message"), [
    ({"source": "guess"}, "source is 'guess'"),
    ({"finish": "tired"}, "finish"), ({"exited": True}, "exit_index is None"),
])  # fmt: skip
def test_inconsistent_records_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        _record(**changes)


def test_a_decoded_record_stands_for_its_replay():
    replayed, decoded = _record(source="replay", latency_s=None), _record()
    assert one_per_problem([replayed, decoded]) == one_per_problem([decoded, replayed]) == [decoded]
    assert len(one_per_problem([replayed, _record(seed=1), _record("think")])) == 3


def test_the_record_of_a_replay_counts_what_decoding_would_write():
    trace = {"id": "a-1", "task": "a", "split": "test", "finish": "length", "seed": 4}
    shared = {"id": "a-1", "signals": None, "correct": True, "answer": "7"}
    exited = Replayed(boundary=0, exit_index=3, ids=(5, 6, 7, 2, 8), thinking_tokens=3, **shared)
    left = record_of_replay("probe", trace, exited)
    assert (left.tokens, left.thinking_tokens, left.exit_index, left.finish, left.seed) == (5, 3, 3, "stop", 4)
    full = Replayed(boundary=None, exit_index=None, ids=(5,) * 9, thinking_tokens=9, **shared)
    stayed = record_of_replay("probe", trace, full)
    assert (stayed.tokens, stayed.exited, stayed.finish, stayed.source) == (9, False, "length", "replay")


def test_results_have_the_documented_keys_and_average_over_tasks(tmp_path):
    results = _results()
    write_json(tmp_path / "results.json", results)  # no nan, no numpy scalars
    assert json.loads((tmp_path / "results.json").read_text()) == results
    task = results["methods"]["specexit"]["tasks"]["chain"]
    wanted = {
        "n",
        "accuracy",
        "accuracy_ci95",
        "tokens_mean",
        "thinking_tokens_mean",
        "latency_s_mean",
        "tau_mean",
        "exit_rate",
    }
    assert wanted <= set(task)
    overall = results["methods"]["specexit"]["overall"]
    assert set(overall) == set(task)
    assert {"device", "git_revision", "versions", "methods"} <= set(results)
    assert list(results["methods"]) == ["eagle3", "specexit", "ceiling", "oracle"]
    assert (task["n"], overall["n"], overall["decoded_n"]) == (40, 50, 50)
    assert results["methods"]["oracle"]["overall"]["decoded_n"] == 0
    assert task["accuracy"] == 0.9 and overall["accuracy"] == pytest.approx((0.9 + 1.0) / 2)
    assert overall["tokens_mean"] == pytest.approx((40 + 19.5 + 40 + 4.5) / 2)
    assert overall["latency_s_mean"] == pytest.approx(0.2) and overall["exit_rate"] == 1.0
    assert results["methods"]["oracle"]["overall"]["latency_s_mean"] is None
    assert overall["accuracy_ci95"][0] < overall["accuracy"] < overall["accuracy_ci95"][1]


def test_results_refuse_nothing_and_clashes():
    with pytest.raises(ValueError, match="no records"):
        build_results([], "cpu", "a", {})
    with pytest.raises(ValueError, match="device"):
        build_results([_record()], "cpu", "a", {}, {"device": 1})


def test_tau_counts_the_bonus_token_and_pools_steps():
    records = [_record(accepted=(1, 0, 0)), _record(number=1, accepted=(0, 0, 3))]
    assert list(histogram(records)) == [1, 0, 3]
    assert tau(histogram(records)) == pytest.approx((1 + 3 * 3) / 4)
    assert summarise(records)["tau_mean"] == pytest.approx(2.5)
    assert tau(histogram([_record("think", accepted=(30,))])) is None


def test_seeds_of_a_problem_are_not_independent():
    rng = np.random.default_rng(0)
    solved = rng.random(60) < 0.7
    once = [_record(number=i, correct=bool(solved[i])) for i in range(60)]
    five = [_record(number=i, correct=bool(solved[i]), seed=s) for i in range(60) for s in range(5)]
    one, many = summarise(once), summarise(five)
    assert (many["n"], many["seeds"]) == (60, 5)
    assert many["accuracy"] == pytest.approx(one["accuracy"])
    assert many["accuracy_ci95"] == one["accuracy_ci95"]  # five identical runs give no more information than one
    perfect = summarise([_record(number=i, seed=s) for i in range(30) for s in range(3)])
    assert perfect["accuracy_ci95"][0] == pytest.approx(0.886, abs=1e-3)


def test_three_identical_seeds_are_compared_as_one():
    def runs(seeds: int) -> list[Record]:
        both = [_record(m, number=i, seed=s) for m in ("eagle3", "specexit") for i in range(30) for s in range(seeds)]
        return [dataclasses.replace(r, correct=r.method == "eagle3" or r.id[-1] != "3") for r in both]

    one, three = (compare(runs(seeds), "specexit", "eagle3") for seeds in (1, 3))
    assert one["mcnemar_p"] == three["mcnemar_p"] == 0.25 and three["problems"] == one["pairs"] == 30
    assert three["accuracy_difference"] == one["accuracy_difference"]
    assert "90 (30 problems)" in tables.comparison_table([three]) and "30 problems" not in tables.comparison_table(
        [one]
    )


def test_comparison_is_paired_and_stratified():
    found = compare(_suite(), "specexit", "eagle3")
    assert (found["pairs"], found["harmed"], found["mended"], found["timed_pairs"]) == (50, 4, 0, 50)
    assert found["accuracy_difference"]["value"] == pytest.approx(-0.05)
    assert found["accuracy_difference"]["ci95"][1] <= 0
    assert found["tokens_ratio"]["value"] == pytest.approx((59.5 + 44.5) / (119.5 + 104.5))
    assert found["speedup"]["value"] == pytest.approx(2.5)
    json.dumps(found, allow_nan=False)
    with pytest.raises(ValueError, match="share no problem"):
        compare(_suite(), "specexit", "deer")


def test_comparison_uses_only_common_problems():
    records = [r for r in _suite() if not (r.method == "eagle3" and r.task == "logic")]
    assert compare(records, "specexit", "eagle3")["pairs"] == 40


def test_shares_of_the_bounds():
    found = shares(_suite(), "specexit")
    assert found["saving"] == pytest.approx(60) and found["saving_of_oracle"] == pytest.approx(80)
    assert found["share_of_ceiling"]["value"] == pytest.approx(60 / 70)
    assert found["share_of_oracle"]["value"] == pytest.approx(60 / 80)
    alone = shares([r for r in _suite() if r.method in ("eagle3", "specexit")], "specexit")
    assert alone["share_of_ceiling"] is None and alone["share_of_oracle"] is None


def test_offsets_place_every_trace_in_one_bin():
    label = {"boundaries": [4, 9, 14, 19, 24, 29], "stable": 1, "first": 0}
    records = [_record("specexit", number=i, exited=True, exit_index=b + 1) for i, b in enumerate(label["boundaries"])]
    records += [_record("specexit", number=6), _record("specexit", number=7), _record("eagle3", number=0)]
    labels = [label | {"id": f"chain-{i}"} for i in range(7)] + [label | {"id": "chain-7", "stable": None}]
    found = exit_offsets(records, labels)
    assert list(found) == ["specexit"]  # eagle3 never exits
    expected = dict(zip(BINS, [1, 1, 1, 1, 2, 1, 0, 1], strict=True))
    assert found["specexit"] == {name: count / 8 for name, count in expected.items()}
    assert exit_offsets(records, labels, "first")["specexit"]["at T*"] == 1 / 8
    with pytest.raises(ValueError, match="not a boundary of its label"):
        exit_offsets([_record("specexit", exited=True, exit_index=7)], labels)


def test_report_has_every_number():
    results = _results()
    label = {"boundaries": [19], "stable": 0, "first": 0}
    results["offsets"] = {"stable": exit_offsets(_suite(), [label | {"id": r.id} for r in _suite()])}
    pictures = {
        "signals": report.Picture("Signals", "report/signals.png"),
        "new": report.Picture("New", "report/n.png"),
    }
    text = report.report_markdown(results, pictures=pictures, notes=["A note."])
    for wanted in ("| **specexit** | 95.0 (", "abc1234", "−54 %", "2.50×", "85.7 % (", "at T*",
                   "## Signals along traces\n\n![Signals](report/signals.png)", "## New\n\n![New](report/n.png)", "A note.",
                   "| specexit − eagle3 | 50 | −5.00 (", "0.912",
                   "1,234", "90.0 ("):  # fmt: skip
        assert wanted in text, wanted
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1  # all rows have the same number of cells
    assert "nan" not in text and "None" not in text


def test_report_of_one_method_alone():
    results = build_results([_record("think", latency_s=None, accepted=())], "cpu", "a", {})
    assert "| think | 100.0 (" in report.report_markdown(results)
    assert "think" in tables.terminal_table(results)


def test_terminal_table_fits_and_aligns():
    results = _results()
    lines = tables.terminal_table(results, width=100).splitlines()
    assert max(map(len, lines[:-1])) <= 100
    head = lines[:6]
    assert {line.rindex("τ") for line in head if "τ" in line} == {head[0].rindex("τ")}
    assert len({len(line) for line in head}) == 1
    row = next(line for line in lines if line.startswith("specexit"))
    assert row.split()[:2] == ["specexit", "95.0"]
    assert row.split()[3:] == ["52", "−54", "%", "0.200", "s", "2.50×", "4.00", "100", "%"]


def test_measured_methods_are_interleaved_and_warmed_up():
    now, calls = [0.0], []

    def method(name, cost):
        def call(problem):
            calls.append((name, problem))
            now[0] += cost if len(calls) > 4 else 100.0  # the first call of each pair "compiles"
            return np.zeros(1)

        return call

    methods = {"slow": method("slow", 2.0), "fast": method("fast", 1.0)}
    seconds = latency.measure_latency(methods, ["p", "q"], rounds=3, clock=lambda: now[0])
    assert {name: table.tolist() for name, table in seconds.items()} == {
        "slow": [[2.0] * 3] * 2,
        "fast": [[1.0] * 3] * 2,
    }
    timed = calls[4:]
    assert [p for _, p in timed] == ["p", "p", "q", "q"] * 3
    assert {tuple(n for n, _ in timed[i : i + 2]) for i in range(0, 12, 2)} == {("slow", "fast"), ("fast", "slow")}
    with pytest.raises(ValueError, match="at least one"):
        latency.measure_latency({}, ["p"])


def test_interleaved_ratio_sees_three_per_cent_through_drift():
    rng, now = np.random.default_rng(0), [0.0]

    def side(cost):
        def call():
            drift = 1 + 0.5 * np.sin(now[0] / 40)
            now[0] += cost * drift * rng.lognormal(0, 0.02)
            return np.zeros(1)

        return call

    found = latency.interleaved_ratio(side(1.0), side(1.03), rounds=200, clock=lambda: now[0])
    assert found.low <= found.median <= found.high
    assert 1.02 < found.median < 1.04 and found.high - found.low < 0.03 and found.rounds == 200
    with pytest.raises(ValueError, match="at least 50"):
        latency.interleaved_ratio(side(1.0), side(1.0), rounds=20)


def _view(exit_at: int | None, thresholds=(0.5, 0.5, 10.0)) -> trace_figure.TraceView:
    signals = np.abs(np.random.default_rng(0).random((60, 3))) * [1.0, 1.0, 50.0]
    stages = trace_figure.text_stages(
        [(0, 20, "35 + 40"), (20, 30, "So 75.\n\n"), (30, 60, "Wait, let me\ncheck that.")]
    )
    assert stages == [(0, 30, "first attempt"), (30, 60, "“Wait, let me check that.”")]
    return trace_figure.TraceView(
        "t", signals, [19, 29, 59], [False, True, True], signals, 29, exit_at, thresholds, stages
    )


def test_figures_are_drawn(tmp_path):
    results = _results()
    bins = score_quality.reliability(np.arange(50) % 2 == 0, np.linspace(0, 1, 50))
    drawn = {
        "signals": trace_figure.signals_figure([_view(29), _view(None), _view(59)]),
        "accuracy": figures.accuracy_tokens_figure({n: m["overall"] for n, m in results["methods"].items()}),
        "acceptance": figures.acceptance_figure({n: np.array(c) for n, c in results["acceptance"].items()}),
        "reliability": figures.reliability_figure(bins, 0.9, 0.1),
    }
    for name, figure in drawn.items():
        figure_style.save_figure(tmp_path / f"{name}.png", figure)
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    texts = [text.get_text() for part in drawn["signals"].subfigs for axes in part.axes for text in axes.texts]
    assert any("30 of 60 tokens not written" in text for text in texts)
    labels = [text.get_text() for axes in drawn["accuracy"].axes for text in axes.texts]
    assert set(labels) == {"eagle3", "specexit", "ceiling", "oracle"}
    with pytest.raises(ValueError, match="decoded method"):
        figures.acceptance_figure({"oracle": np.zeros(0)})


def test_the_report_says_what_failed_trials_cost():
    trace = {"id": "a-1", "task": "a", "split": "test", "finish": "stop", "seed": 0}
    tried = Replayed("a-1", 0, 3, None, (5, 6, 7, 2, 8), 3, True, "7", trial_tokens=9)
    told = report.report_markdown(build_results([record_of_replay("deer", trace, tried), _record()], "cpu", "abc", {}))
    assert "`deer` also generated 9.0 tokens a problem in trials that failed" in told
    assert "`eagle3` also" not in told


def test_methods_at_one_place_share_a_label():
    point = {"tokens_mean": 100.0, "accuracy": 0.9, "tokens_ci95": [95.0, 105.0], "accuracy_ci95": [0.88, 0.92]}
    figure = figures.accuracy_tokens_figure({"eagle3": point, "think": point})
    assert [text.get_text() for text in figure.axes[0].texts] == ["think = eagle3"]
    assert set(figure_style.COLOURS) == set(METHODS)


def test_an_answer_without_thinking_is_no_thinking(tmp_path):
    trace = {"id": "a-1", "task": "a", "split": "test", "correct": True, "ids": [5, 6, 7, 1], "think_end": None, "exit": None,
             "steps": 0, "accepted": [], "answer": "7", "finish": "stop", "seed": 0}  # fmt: skip
    assert record_of_trace("nothink", trace | {"thinking_tokens": 0}).thinking_tokens == 0
    assert record_of_trace("nothink", trace).thinking_tokens == 0  # of a trace that does not say
    assert record_of_trace("think", trace | {"thinking_tokens": 4}).thinking_tokens == 4  # never closed: all of it
    assert record_of_trace("think", trace).thinking_tokens == 4
    earlier = _record("nothink", tokens=4, thinking_tokens=4)  # as records were written before
    write_records(tmp_path / "records.jsonl", [earlier, _record()])
    assert [record.thinking_tokens for record in read_records(tmp_path / "records.jsonl")] == [0, 95]


def test_tokens_a_step_have_one_name_each():
    """tau is a mean over tasks of what was decoded; the figure's numbers pool all steps of all tasks."""
    results = _results()
    text = report.report_markdown(results)
    assert (
        "τ is tokens per verify step, bonus token counted, exit-truncated steps left out, a mean over tasks too, of the "
        "problems that were decoded (`eagle3` 50, `specexit` 50)." in text
    )
    pooled = figures.acceptance_figure({n: np.array(c) for n, c in results["acceptance"].items()})
    shown = [t.get_text() for t in pooled.axes[0].get_legend().get_texts()] + [pooled.axes[0].get_xlabel()]
    assert not any("τ" in text for text in shown) and shown[0] == "eagle3  (2.33 tokens a step, all steps pooled)"


@pytest.mark.parametrize(("share", "shown"), [
    (0.85, "0.85"), (0.5, "0.50"), (0.9932, "0.9932"), (0.997, "0.9970"), (0.99996, "0.999960"), (1.0, "1.00"), (0.0, "0.00"),
    (1 - 1e-9, "0.9999999990"), (0.0871, "0.087"), (0.0004, "0.00040"), (0.9999937, "0.9999937"), (1.5, "1.50"),
])  # fmt: skip
def test_shares_have_digits_enough_to_tell_them_from_one(share, shown):
    assert share_text(share) == shown
    if 0 < share < 1:
        assert 0 < float(shown) < 1


def test_confidence_is_drawn_where_it_happens():
    """Equal steps on the axis are equal factors of 1 - confidence; 1 itself has a place."""
    scale = scales.NearOne(4)
    values = np.array([0.0, 0.9, 0.99, 0.999, 1.0])
    drawn = scale.forward(values)
    assert drawn == pytest.approx([0, 1, 2, 3, 4], abs=0.05)
    assert scale.inverse(drawn) == pytest.approx(values, abs=1e-9)
    assert scale.ticks() == ([0.0, 0.5, 0.9, 0.99, 0.999, 1.0], ["0", "0.5", "0.9", "0.99", "0.999", "1"])
    assert (
        scales.NearOne.of(np.array([0.2, 0.5])).decades == 2
        and scales.NearOne.of(np.array([0.99999, 1.0])).decades == 6
    )
    (part,) = trace_figure.signals_figure([_view(29, (0.9974, 0.3, 10.0))]).subfigs
    confidence = next(axes for axes in part.axes if "confidence" in axes.get_ylabel())
    assert confidence.get_yscale() == "function"
    texts = [text.get_text() for axes in part.axes for text in axes.texts]
    assert "≥ 0.9974" in texts and "≥ 0.30" in texts and "≤ 10" in texts


def test_reliability_is_told_where_the_boundaries_are():
    confidence = np.concatenate([np.linspace(0.1, 0.9, 50), 1 - np.geomspace(1e-2, 1e-5, 1000)])
    agree = np.random.default_rng(0).random(len(confidence)) < confidence
    bins = score_quality.reliability(agree, confidence, edges=score_quality.NEAR_ONE)
    assert bins.count.sum() == len(confidence) and (bins.predicted >= 0.99).sum() >= 3 and (bins.count > 0).all()
    assert (bins.left <= bins.predicted).all() and (bins.predicted <= bins.right).all()
    assert bins.error == score_quality.reliability(agree, confidence).error
    figure = figures.reliability_figure(bins, 0.9, 0.1)
    assert figure.axes[0].get_xscale() == "function" and figure.axes[1].get_xscale() == "function"
