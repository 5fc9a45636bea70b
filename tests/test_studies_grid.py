"""Main effects and interactions of a grid, from values whose effects are known."""

import csv
import itertools

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from flaxdigits.metrics import formats
from flaxdigits.plurals import listed
from flaxdigits.reports.study import StudyReport
from flaxdigits.studies.ablation import VariantResult, compare_with_base
from flaxdigits.studies.grid import Grid, grid_effects, grid_of
from flaxdigits.studies.statistics import estimate
from flaxdigits.studies.study import Study, variants_of

FACTORS = {"loss": ("mse", "focal"), "rate": ("low", "mid", "high"), "norm": ("off", "on")}
LOSS, RATE, NORM = (0, 0.02), (0, 0.03, -0.05), (0, 0.01)
MSE_AT_HIGH = 0.04  # the interaction of focal with the high rate
REFERENCE = ("mse", "low", "off")


def variant_of(levels):
    return "base" if levels == REFERENCE else ", ".join(levels)


GRID = Grid(FACTORS, {levels: variant_of(levels) for levels in itertools.product(
    *FACTORS.values())})


def variants(noise=0.0, seeds=range(5), factors=FACTORS, **changes):
    """The results of a study whose values are a sum of known effects, and of noise."""
    rng, results = np.random.default_rng(3), []
    for levels in itertools.product(*factors.values()):
        loss, rate, norm = (names.index(level) for names, level in zip(
            FACTORS.values(), levels, strict=True))
        values = {
            seed: 0.8 + 0.005 * seed + LOSS[loss] + RATE[rate] + NORM[norm]
            + MSE_AT_HIGH * (loss == 1 and rate == 2) + noise * rng.normal() for seed in seeds}
        fields = {"is_paired": True, "diverged": ()} | changes.get(variant_of(levels), {})
        values = {seed: value for seed, value in values.items() if seed not in fields["diverged"]}
        results.append(VariantResult(
            variant_of(levels), values, estimate(list(values.values())) if values else None,
            None, None,
            extra_metrics={}, **fields))
    return compare_with_base(results)


def test_known_effects_are_found_without_noise():
    effects = {effect.levels: effect for effect in grid_effects(GRID, variants()).effects}
    assert [levels for levels in effects if len(levels) == 1] == [
        ("mse",), ("focal",), ("low",), ("mid",), ("high",), ("off",), ("on",)]
    known = {("focal",): 0.02 + MSE_AT_HIGH / 3, ("mid",): 0.03,
             ("high",): -0.05 + MSE_AT_HIGH / 2, ("on",): 0.01,
             ("focal", "mid"): 0, ("focal", "high"): MSE_AT_HIGH, ("focal", "on"): 0,
             ("mid", "on"): 0, ("high", "on"): 0}
    found = {levels: effect.difference.mean for levels, effect in effects.items()
             if effect.difference}
    assert found == pytest.approx(known)
    assert {levels for levels, effect in effects.items() if effect.difference is None} == {
        ("mse",), ("low",), ("off",)}
    mean = 0.8 + 0.01 + np.mean(RATE) + np.mean(NORM)
    assert effects["mse",].estimate.mean == pytest.approx(mean)
    # The seeds differ, but their effects do not: there is an interval of the mean, and no test.
    assert effects["mse",].estimate.sd == pytest.approx(np.std(0.005 * np.arange(5), ddof=1))
    assert effects["focal",].difference.p is None and effects["focal",].p_holm is None


def test_intervals_and_tests_are_those_of_the_seeds():
    results = variants(noise=0.01)
    values = {result.variant: result.values for result in results}
    effects = {effect.levels: effect for effect in grid_effects(GRID, results).effects}

    def mean(seed, *wanted):
        cells = [values[variant_of(levels)][seed] for levels in GRID.cells
                 if set(wanted) <= set(levels)]
        return np.mean(cells)

    contrasts = {
        ("high",): [mean(seed, "high") - mean(seed, "low") for seed in range(5)],
        ("focal", "high"): [
            mean(seed, "focal", "high") - mean(seed, "mse", "high")
            - mean(seed, "focal", "low") + mean(seed, "mse", "low") for seed in range(5)]}
    for levels, contrast in contrasts.items():
        effect, test = effects[levels], stats.ttest_1samp(contrast, 0)
        assert effect.difference.p == pytest.approx(test.pvalue)
        assert (effect.difference.low, effect.difference.high) == pytest.approx(
            tuple(test.confidence_interval()))
        assert list(effect.by_seed.values()) == pytest.approx(contrast)
    tested = sorted((effect for effect in effects.values() if effect.difference),
                    key=lambda effect: effect.difference.p)
    assert len(tested) == 9
    assert tested[0].p_holm == pytest.approx(9 * tested[0].difference.p)
    assert all(effect.p_holm >= effect.difference.p for effect in tested)


def test_only_seeds_that_finished_for_every_combination_count():
    found = grid_effects(GRID, variants(**{"focal, mid, on": {"diverged": (1, 3)}}))
    assert {effect.estimate.n for effect in found.effects} == {3}
    assert set(found.effects[0].by_seed) == {0, 2, 4}
    assert found.diverged == {"focal, mid, on": (1, 3)} and not found.omitted


ALL = tuple(range(5))


@pytest.mark.parametrize(("diverged", "omitted"), [
    ({"focal, mid, on": ALL}, [("rate", "mid")]),
    ({"mse, mid, off": ALL, "focal, mid, on": ALL}, [("rate", "mid")]),
    ({f"focal, {rate}, {norm}": ALL for rate in FACTORS["rate"] for norm in FACTORS["norm"]},
     [("loss", "focal")]),
    ({"mse, mid, off": (1, 2, 3, 4), "focal, high, on": (0,)}, [("rate", "mid")]),
    ({"mse, mid, off": ALL, "focal, high, on": ALL}, [("rate", "mid"), ("norm", "on")]),
])
def test_effects_are_computed_without_levels_that_diverged(diverged, omitted):
    results = variants(**{name: {"diverged": seeds} for name, seeds in diverged.items()})
    found = grid_effects(GRID, results)
    assert found.omitted == omitted and found.diverged == diverged
    levels = {level for effect in found.effects for level in effect.levels}
    assert levels == {level for factor, names in FACTORS.items() for level in names
                      if (factor, level) not in omitted and len(set(names) - {
                          name for _, name in omitted}) > 1}
    known = {("on",): 0.01, ("mid", "on"): 0, ("high", "on"): 0}
    means = {effect.levels: effect.difference.mean for effect in found.effects
             if effect.difference}
    assert {name: means[name] for name in known if name in means} == pytest.approx(
        {name: value for name, value in known.items() if name in means})
    report = StudyReport("Rates", "validation_accuracy", formats(()), {}, results, GRID)
    names = " and ".join(f"{factor}: {level}" for factor, level in omitted)
    for text in (report.markdown(), "\n".join(report.tables()[1][1])):
        assert f"The effects are therefore computed without {names}." in text
        assert all(f"{name} ({listed('seed', seeds)})" in text
                   for name, seeds in diverged.items())


def test_a_report_without_effects_states_what_is_missing():
    factors = FACTORS | {"rate": ("low", "mid"), "norm": ("off",)}
    grid = Grid(factors, {levels: variant_of(levels)
                          for levels in itertools.product(*factors.values())})
    results = variants(factors=factors, **{"focal, mid, off": {"diverged": ALL}})
    assert not grid_effects(grid, results).effects
    report = StudyReport("Rates", "validation_accuracy", formats(()), {}, results, grid)
    ((_, notes),) = report.tables()
    for text in (report.markdown(), "\n".join(notes)):
        assert "Diverged combinations: focal, mid, off (seeds 0, 1, 2, 3, 4)." in text
        assert "Main effects and interactions therefore cannot be computed" in text
    assert report.json()["missing"] and "study.effects.png" not in report.files()


def test_combinations_on_different_images_and_single_factors_have_no_effects():
    results = variants(**{"focal, mid, on": {"is_paired": False}})
    assert not grid_effects(GRID, results).effects
    report = StudyReport("Rates", "validation_accuracy", formats(()), {}, results, GRID)
    assert "No main effects and interactions: the combinations" in report.markdown()
    one = FACTORS | {"rate": ("low",), "norm": ("off",)}
    cells = {levels: variant_of(levels) for levels in itertools.product(*one.values())}
    assert not grid_effects(Grid(one, cells), variants(factors=one)).effects
    two = FACTORS | {"norm": ("off",)}
    cells = {levels: variant_of(levels) for levels in itertools.product(*two.values())}
    effects = grid_effects(Grid(two, cells), variants(factors=two)).effects
    assert {effect.factors for effect in effects} == {("loss",), ("rate",), ("loss", "rate")}


def test_the_grid_of_a_study_knows_its_base():
    study = Study("dense_cnn", variants={"slow": ("train.epochs=20",)}, grid={
        "model.dropout": (0.1, 0.5), "rate": {"high": ("optimizer.learning_rate=0.1",), "low": ()}})
    grid = grid_of(study, variants_of(study))
    assert grid.factors == {"model.dropout": ("dropout=0.1", "dropout=0.5"),
                            "rate": ("high", "low")}
    assert grid.cells["dropout=0.1", "low"] == "base" and grid.reference() == ("dropout=0.1", "low")
    assert grid.cells["dropout=0.5", "high"] == "dropout=0.5, high"
    assert grid.label("base") == "base (dropout=0.1, low)"
    assert grid.label("dropout=0.5, high") == "dropout=0.5, high"
    other = Study("dense_cnn", grid={"model.dropout": (0.2, 0.5)})
    assert grid_of(other, variants_of(other)).label("base") == "base"
    assert grid_of(other, variants_of(other)).reference() == ("dropout=0.2",)


def test_the_report_contains_the_effects():
    results = variants(noise=0.01)
    effects = grid_effects(GRID, results).effects
    report = StudyReport("Rates", "validation_accuracy", formats(()), {}, results, GRID)
    files = report.files()
    assert {"study.effects.csv", "study.effects.png"} <= files.keys()
    effect = next(effect for effect in effects if effect.levels == ("focal", "high"))
    line = next(line for line in report.markdown().splitlines() if "focal × high" in line)
    assert f"{100 * effect.difference.mean:+.2f} [{100 * effect.difference.low:+.2f}, " in line
    assert "| loss: mse (reference) | 5 |" in report.markdown()
    assert "corrected for the 9 tests of this table" in report.markdown()
    rows = {(row["level"], row["other_level"]): row
            for row in csv.DictReader(files["study.effects.csv"].decode().splitlines())}
    assert float(rows["focal", "high"]["effect"]) == effect.difference.mean
    assert rows["mse", ""]["effect"] == "" and rows["mse", ""]["factor"] == "loss"
    console = Console(width=80, highlight=False)
    with console.capture() as capture:
        console.print(report.tables()[1][0])
    interval = f"[{100 * effect.difference.low:+.2f},{100 * effect.difference.high:+.2f}]"
    assert interval in capture.get(), "an interval is not broken across two lines"
    assert "| base (mse, low, off) | 5 |" in report.markdown()
    console = Console(width=200)
    with console.capture() as capture:
        console.print(report.tables()[0][0])
    assert "base (mse, low, off) " in capture.get()
    without = StudyReport("Rates", "validation_accuracy", formats(()), {}, results)
    assert len(without.tables()) == 1 and "effects" not in without.markdown()
