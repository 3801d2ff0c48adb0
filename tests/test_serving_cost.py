"""launch.benchmark --serving: the numbers mean what their names say (`test_serving.py` has a run of it)."""

import pytest

from specexit_jax.serving import cost


def test_the_numbers_of_known_seconds(monkeypatch):
    now = {"wall": 0.0, "cpu": 0.0}
    monkeypatch.setattr(cost.time, "perf_counter", lambda: now["wall"])
    monkeypatch.setattr(cost.time, "process_time", lambda: now["cpu"])

    def way(wall: float, cpu: float):
        def answers():
            now["wall"], now["cpu"] = now["wall"] + wall, now["cpu"] + cpu
            return [{"tokens": 40, "exit": 3}, {"tokens": 60, "exit": None}]

        return answers

    found = cost._under_load({"direct": way(1, 0.5), "whole": way(2, 0.75)}, 3)
    assert found == {
        "tokens": 100,
        "tokens_per_second": {"direct": [100.0] * 3, "whole": [50.0] * 3},
        "cpu_ms_per_token": {"direct": [5.0] * 3, "whole": [7.5] * 3},
        "times_the_seconds": {"whole": [2.0] * 3},
        "times_the_cpu": {"whole": [1.5] * 3},
    }

    def answered(*seconds: float, first: float | None = None):
        return lambda: [
            {"seconds": each, "first": first, "thinking": "a", "text": "b", "tokens": 5, "exit": None}
            for each in seconds
        ]

    ways = {
        "api": answered(0.1, 0.2, 0.4),
        "whole": answered(0.102, 0.21, 0.45),
        "streamed": answered(0.2, 0.2, 0.2, first=0.01),
    }
    found = cost._single(ways, 2)
    assert found["requests"] == 3 and found["tokens"] == 15
    assert found["ms"]["whole"] == pytest.approx([210] * 3) and found["first_text_ms"] == pytest.approx([10] * 3)
    assert found["cpu_ms"] == {"api": [0.0] * 3, "whole": [0.0] * 3, "streamed": [0.0] * 3}
    assert found["overhead_ms"]["whole"] == pytest.approx([10] * 3), "the median of what each request took more"


@pytest.mark.parametrize("other", [{"tokens": 6}, {"exit": 2}, {"text": "c"}, {"error": "OSError: gone"}])
def test_answers_that_differ_are_refused(other):
    own = {"seconds": 1.0, "first": None, "thinking": "a", "text": "b", "tokens": 5, "exit": None}
    with pytest.raises(ValueError, match="answered differently|did not answer: OSError: gone"):
        cost._check({"api": [own], "whole": [own | other]})
    cost._check({"api": [own], "whole": [own | {"seconds": 2.0}], "direct": [{"tokens": 5, "exit": None}]})
