"""Intervals, paired tests, recovered fractions and losses, against textbook values and independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from monai_sasm.evaluation.scoring import Case, Compared, Gain, Method, ResultCache, Tally, score
from monai_sasm.evaluation.statistics import (
    bootstrap_interval,
    grouped_interval,
    losses,
    paired_test,
    recovered_fraction,
    recovered_interval,
)
from monai_sasm.evaluation.table import Table


def test_interval_agrees_with_scipys_bootstrap() -> None:
    values = np.random.default_rng(1).normal(27, 2, 30)
    low, high = bootstrap_interval(values, draws=9999)
    expected = stats.bootstrap((values,), np.mean, method="percentile", rng=2).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.05)
    assert bootstrap_interval(values) == bootstrap_interval(values), "the draws have a seed"


def test_intervals_and_tests_need_six_finite_values() -> None:
    five = [1.0, 2.0, 3.0, 4.0, 5.0]
    for limits in (
        bootstrap_interval([*five, math.inf, math.nan]),
        grouped_interval([[value, value] for value in five] + [[]]),
        recovered_interval(five, [0.0] * 5, [9.0] * 5),
    ):
        assert all(math.isnan(limit) for limit in limits)
    assert bootstrap_interval([2.0] * 6 + [math.nan]) == (2.0, 2.0)
    paired = paired_test(five, [0.0] * 5)
    assert (paired.difference, math.isnan(paired.p)) == (3.0, True)
    assert paired_test([*five, 6.0], [0.0] * 6).p == pytest.approx(2**-5)


def test_groups_are_drawn_whole() -> None:
    values = list(np.random.default_rng(0).normal(0, 1, 8))
    assert grouped_interval([[value] for value in values]) == bootstrap_interval(values)
    low, high = grouped_interval([[value] * 100 for value in values])
    assert (low, high) == pytest.approx(bootstrap_interval(values)), "100 alike say no more than one"
    uneven = [[1.0] * 9, *[[0.0]] * 9]
    low, high = grouped_interval(uneven)
    assert low < 0.5 < high
    assert high > 0.6


def test_paired_test_of_one_sided_differences_is_exact() -> None:
    reference = np.arange(8.0)
    paired = paired_test(reference + np.linspace(0.1, 0.8, 8), reference)
    assert paired.difference == pytest.approx(0.45)
    assert paired.p == pytest.approx(2 / 2**8), "both tails of 2^8 equally likely signs"


def test_paired_test_of_nothing() -> None:
    assert paired_test([1.0] * 6, [1.0] * 6).p == 1.0
    assert math.isnan(paired_test([1.0], [2.0]).p)
    with pytest.raises(ValueError, match="same subjects"):
        paired_test([1.0, 2.0], [1.0])


def test_recovered_fraction_is_a_ratio_of_means() -> None:
    high, low = np.array([0.9, 0.8, 0.7] * 2), np.array([0.5, 0.8, 0.4] * 2)
    assert recovered_fraction(high, low, high) == 1
    assert recovered_fraction(low, low, high) == 0
    assert recovered_fraction(low - 0.7, low, high) == pytest.approx(-3)
    assert math.isnan(recovered_fraction(high, high, high))
    halfway = (high + low) / 2
    assert recovered_interval(halfway, low, high) == pytest.approx((0.5, 0.5)), "the same in every resample"
    few, many = recovered_interval([0.9, 0.8, 0.5] * 2, low, high)
    assert few < recovered_fraction([0.9, 0.8, 0.5] * 2, low, high) < many


def test_losses_count_only_who_got_worse() -> None:
    assert losses([0.9, 0.5, 0.4], [0.8, 0.6, 0.7]) == {
        "worse": 2.0,
        "loss": pytest.approx(0.2),
        "largest loss": pytest.approx(0.3),
    }
    assert losses([1.0], [0.5]) == {"worse": 0.0, "loss": 0.0, "largest loss": 0.0}
    assert losses([30.0, 28.0, 31.0], [math.inf, 30.0, 30.0]) == {"worse": 2.0, "loss": 2.0, "largest loss": 2.0}


def test_rows_carry_intervals_and_tests() -> None:
    cases = [Case(str(k), "x2", np.zeros((1, 1, 1), np.float32), np.full((1, 1, 1), k, np.float32)) for k in range(6)]
    methods = [Method("ours", lambda case: case.degraded + 1), Method("other", lambda case: case.degraded + 2)]
    rows = score(
        "any", cases, methods, measure=lambda case, image: {"mean": float(image.mean())}, cache=ResultCache(None),
        compared=Compared("ours", ("mean",), "ours"),
    )  # fmt: skip
    assert "p mean (ours)" not in rows[0].scores["x2"]
    assert rows[1].scores["x2"]["p mean (ours)"] == pytest.approx(2 / 2**6)
    low, high = rows[1].intervals["x2"]["mean"]
    assert 2 < low < rows[1].scores["x2"]["mean"] < high < 7


def test_no_interval_and_no_p_of_five_cases() -> None:
    cases = [Case(str(k), "x2", np.zeros((1, 1, 1), np.float32), np.full((1, 1, 1), k, np.float32)) for k in range(5)]
    methods = [Method("ours", lambda case: case.degraded + 1), Method("other", lambda case: case.degraded + 2)]
    (_, other) = score(
        "any", cases, methods, measure=lambda case, image: {"mean": float(image.mean())}, cache=ResultCache(None),
        compared=Compared("ours", ("mean",), "ours"),
    )  # fmt: skip
    assert math.isnan(other.scores["x2"]["p mean (ours)"])
    assert other.interval("x2", "mean") is None


def test_a_gain_is_paired() -> None:
    """What the images differ in, 0 to 9 here, is in both and drops out; of a mean's own interval it is all."""
    cases = [Case(str(k), "x2", np.zeros((1, 1, 1), np.float32), np.full((1, 1, 1), k, np.float32)) for k in range(10)]
    lift = np.linspace(1.9, 2.1, 10)
    methods = [
        Method("input", lambda case: case.degraded),
        Method("ours", lambda case: case.degraded + np.float32(lift[int(case.name)])),
        Method("slow", lambda case: case.degraded + 1, first=2),
    ]
    rows = {
        row.method: row
        for row in score(
            "any", cases, methods, measure=lambda case, image: {"mean": float(image.mean())}, cache=ResultCache(None),
            compared=Compared("input", ("mean",)), gain=Gain("mean"),
        )
    }  # fmt: skip
    ours = rows["ours"]
    assert ours.scores["x2"]["mean gain"] == pytest.approx(2.0)
    assert ours.interval("x2", "mean gain") == pytest.approx(bootstrap_interval(lift), abs=1e-6)
    low, high = ours.interval("x2", "mean gain") or (0, 0)
    assert high - low < 0.1
    low, high = ours.interval("x2", "mean") or (0, 0)
    assert high - low > 3
    assert "mean gain" not in rows["input"].scores["x2"]
    assert rows["slow (subset)"].scores["x2"]["mean gain"] == 1
    assert rows["ours (subset)"].scores["x2"]["mean gain"] == pytest.approx(lift[:2].mean())
    assert rows["ours (subset)"].interval("x2", "mean gain") is None
    tally = Tally()
    for case in cases:
        for name, value in (("input", float(case.name)), ("ours", float(case.name) + 3)):
            tally.add(name, case, {"mean": value}, seconds=0)
    assert tally.rows(cases, Gain("mean"))[1].interval("x2", "mean gain") == (3.0, 3.0)
    assert "'input'" in Gain("mean").definition["mean gain"]


@pytest.mark.parametrize("patients", [2, 6])
def test_images_of_one_patient_do_not_count_apart(patients: int) -> None:
    """Ten images of each patient, alike: as sure as one image each, and of two patients nothing is said."""
    cases = [
        Case(f"{k} {j}", "", np.zeros((1, 1, 1), np.float32), np.full((1, 1, 1), k, np.float32), patient=str(k))
        for k in range(patients)
        for j in range(10)
    ]
    methods = [
        Method("input", lambda case: case.degraded),
        Method("ours", lambda case: 2 * case.degraded + 1),
    ]
    (_, ours) = score(
        "any", cases, methods, measure=lambda case, image: {"mean": float(image.mean())}, cache=ResultCache(None),
        compared=Compared("input", ("mean",), "input"), gain=Gain("mean"),
    )  # fmt: skip
    assert (ours.n, ours.patients) == ({"": 10 * patients}, {"": patients})
    assert ours.scores[""]["mean gain"] == pytest.approx(np.mean(np.arange(patients) + 1))
    if patients == 2:
        assert ours.interval("", "mean gain") is ours.interval("", "mean") is None
        assert math.isnan(ours.scores[""]["p mean (input)"])
        page = Table("any", rows=(ours,)).markdown()
        assert "| 20 (2 patients) |" in page
        assert "- **below 6 patients**" in page
    else:
        assert ours.interval("", "mean gain") == pytest.approx(bootstrap_interval(np.arange(6) + 1.0))
        assert ours.scores[""]["p mean (input)"] == pytest.approx(2 / 2**6)
        assert "patients" not in Table("any", rows=(ours,)).markdown()
    assert "patients with all their images" in Gain("mean").definition["mean gain"]
