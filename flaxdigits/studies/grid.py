"""Main effects and two-way interactions of the factors of a study's grid.

The values of the grid are an array with an axis for each factor and one for the seeds. An effect is
computed for every seed, and then estimated over the seeds: combinations with the same seed are
paired, like a variant and the base.
"""

import collections
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flaxdigits.config import ExperimentConfig
from flaxdigits.studies.ablation import VariantResult
from flaxdigits.studies.statistics import Difference, Estimate, estimate, holm, paired_difference
from flaxdigits.studies.study import BASE, Study, combinations


@dataclasses.dataclass(frozen=True)
class Grid:
    """The grid of a study.

    Attributes:
      factors: the names of the levels of each factor, by the name of the factor.
      cells: the variant of each combination of one level of each factor. It is the base if the base
        has the config of the combination.
    """

    factors: Mapping[str, tuple[str, ...]]
    cells: Mapping[tuple[str, ...], str]

    def reference(self) -> tuple[str, ...]:
        """Returns the reference level of each factor, with which its other levels are compared.

        They are the levels of the base if it is in the grid, else those of the first combination.
        """
        return self._base_levels() or next(iter(self.cells))

    def label(self, variant: str) -> str:
        """Returns the name of a variant, followed by its levels for a base that is in the grid."""
        levels = self._base_levels() if variant == BASE else None
        return f"{variant} ({', '.join(levels)})" if levels else variant

    def without(self, factor: str, level: str) -> "Grid":
        """Returns the grid without a level of a factor."""
        axis = list(self.factors).index(factor)
        kept = tuple(name for name in self.factors[factor] if name != level)
        return Grid({**self.factors, factor: kept},
                    {levels: variant for levels, variant in self.cells.items()
                     if levels[axis] != level})

    def _base_levels(self) -> tuple[str, ...] | None:
        return next((levels for levels, variant in self.cells.items() if variant == BASE), None)


@dataclasses.dataclass(frozen=True)
class Effect:
    """The main effect of a level, or the interaction of two levels of different factors.

    Both are averaged over the other factors.

    Attributes:
      factors: the name of the factor, or the names of the two factors.
      levels: the level of each of these factors.
      estimate: the mean of the metric over all combinations with these levels, and its interval
        over the seeds.
      by_seed: the effect by seed; for a reference level, the deviation from its mean.
      difference: the effect, or None for a reference level. For one level, the mean of this level
        minus that of the reference level of its factor. For two levels a and b of different
        factors, the main effect of a at level b minus the main effect of a at the reference level
        of b's factor.
      p_holm: the p-value of a paired t-test, corrected for the number of tests of the grid.
    """

    factors: tuple[str, ...]
    levels: tuple[str, ...]
    estimate: Estimate
    by_seed: Mapping[int, float]
    difference: Difference | None
    p_holm: float | None = None


@dataclasses.dataclass(frozen=True)
class GridEffects:
    """The effects of a grid, and what they do not cover.

    Attributes:
      effects: the levels of each factor, followed by the interactions of each pair of factors.
        Empty if fewer than two factors have several levels, if too many combinations diverged, or
        if the combinations are evaluated on different images.
      omitted: the levels that are not part of the effects because their combinations diverged, as
        pairs of factor and level.
      diverged: the seeds that diverged, by combination (variant).
      is_paired: whether all combinations are evaluated on the same images.
    """

    effects: Sequence[Effect] = ()
    omitted: Sequence[tuple[str, str]] = ()
    diverged: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    is_paired: bool = True


def grid_of(study: Study, configs: Mapping[str, ExperimentConfig]) -> Grid:
    """Returns the grid of a study.

    Args:
      study: the study.
      configs: the configs that `variants_of` returns for it.
    """
    levels = [names for names, _ in combinations(study.grid)]
    factors = {factor: tuple(dict.fromkeys(names[axis] for names in levels))
               for axis, factor in enumerate(study.grid)}
    cells = {names: name if (name := ", ".join(names)) in configs else BASE for names in levels}
    return Grid(factors, cells)


def grid_effects(grid: Grid, variants: Sequence[VariantResult]) -> GridEffects:
    """Returns the main effect of each level and the two-way interactions of each pair of factors.

    Factors with one level have no effects. Only seeds that finished for every combination count. If
    there is no such seed, levels are left out until there is one: first the level whose
    combinations lack the largest share of the seeds.

    Args:
      grid: the grid.
      variants: the results of the variants of the study.
    """
    if len(_varied(grid)) < 2:
        return GridEffects()
    results = {result.variant: result for result in variants}
    cells = [results[variant] for variant in grid.cells.values()]
    if not all(cell.is_paired for cell in cells):
        return GridEffects(is_paired=False)
    values = {cell.variant: cell.values for cell in cells}
    part = _finished_part(grid, values)
    return GridEffects(
        _effects(part, values, grid.reference()),
        [(factor, level) for factor, levels in grid.factors.items() for level in levels
         if level not in part.factors[factor]],
        {cell.variant: cell.diverged for cell in cells if cell.diverged})


def _varied(grid: Grid) -> list[int]:
    """Returns the axes of the factors that have several levels."""
    return [axis for axis, levels in enumerate(grid.factors.values()) if len(levels) > 1]


def _finished_part(grid: Grid, values: Mapping[str, Mapping[int, float]]) -> Grid:
    """Leaves out levels until some seed finished for all combinations, or one combination is left.

    Args:
      grid: the grid.
      values: the compared metric by seed, of each variant.
    """
    reference = dict(zip(grid.factors, grid.reference(), strict=True))
    while not _common_seeds(grid, values) and _varied(grid):
        finished = collections.defaultdict(list)  # numbers of seeds by factor and level
        for levels, variant in grid.cells.items():
            for factor, level in zip(grid.factors, levels, strict=True):
                if len(grid.factors[factor]) > 1:
                    finished[factor, level].append(len(values[variant]))
        # Of equal levels, it prefers one that is not a reference level, and then one of the factor
        # with the most levels.
        grid = grid.without(*min(finished, key=lambda key: (
            np.mean(finished[key]), reference[key[0]] == key[1], -len(grid.factors[key[0]]))))
    return grid


def _common_seeds(grid: Grid, values: Mapping[str, Mapping[int, float]]) -> list[int]:
    """Returns the seeds that finished for every combination."""
    return sorted(set.intersection(*(set(values[variant]) for variant in grid.cells.values())))


def _effects(
    grid: Grid, values: Mapping[str, Mapping[int, float]], base_levels: tuple[str, ...]
) -> list[Effect]:
    """Returns the effects of a grid.

    Args:
      grid: the grid, without levels that have been left out.
      values: the compared metric by seed, of each variant.
      base_levels: the reference level of each factor. If the grid lacks it, the first level of
        the factor is used instead.
    """
    varied, seeds = _varied(grid), _common_seeds(grid, values)
    if len(varied) < 2 or not seeds:
        return []
    names, levels = list(grid.factors), list(grid.factors.values())
    array = np.reshape([[values[variant][seed] for seed in seeds]
                        for variant in grid.cells.values()], [*map(len, levels), len(seeds)])
    reference = [present.index(level) if level in present else 0
                 for present, level in zip(levels, base_levels, strict=True)]
    effects = []
    for axes in [(axis,) for axis in varied] + list(itertools.combinations(varied, 2)):
        others = tuple(axis for axis in range(len(levels)) if axis not in axes)
        means = array.mean(axis=others)  # [levels of each of the axes, seeds]
        for index in np.ndindex(means.shape[:-1]):
            is_reference = [level == reference[axis]
                            for level, axis in zip(index, axes, strict=True)]
            if len(axes) == 2 and any(is_reference):
                continue
            effects.append(_effect(
                tuple(names[axis] for axis in axes),
                tuple(levels[axis][level] for level, axis in zip(index, axes, strict=True)),
                means, index, tuple(reference[axis] for axis in axes), seeds))
    tested = [effect.difference.p for effect in effects
              if effect.difference and effect.difference.p is not None]
    corrected = iter(holm(tested))
    return [dataclasses.replace(effect, p_holm=next(corrected))
            if effect.difference and effect.difference.p is not None else effect
            for effect in effects]


def _effect(
    factors: tuple[str, ...], levels: tuple[str, ...], means: np.ndarray,
    index: tuple[int, ...], reference: tuple[int, ...], seeds: Sequence[int],
) -> Effect:
    """Returns the effect of the levels whose mean metric is `means[index]`.

    Args:
      factors: the names of one or two factors.
      levels: the name of the level of each factor.
      means: [levels of the first factor, levels of the second factor if there is one, seeds].
      index: the index of the level of each factor.
      reference: the index of the reference level of each factor.
      seeds: the seeds.
    """
    values, mean = means[index], estimate(means[index])
    if index == reference:
        return Effect(factors, levels, mean, _by_seed(seeds, values - mean.mean), None)
    base = means[reference]
    if len(index) == 2:
        # The main effects of the first level at the level and at the reference of the second factor
        values, base = values - means[reference[0], index[1]], means[index[0], reference[1]] - base
    return Effect(
        factors, levels, mean, _by_seed(seeds, values - base), paired_difference(values, base))


def _by_seed(seeds: Sequence[int], values: np.ndarray) -> dict[int, float]:
    return dict(zip(seeds, map(float, values), strict=True))


def effects_json(effects: Sequence[Effect]) -> list[dict[str, Any]]:
    """Converts effects to JSON values."""
    return [dataclasses.asdict(effect) for effect in effects]
