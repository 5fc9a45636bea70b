"""Trains the first steps of every recipe on the device of this process, for test_gpu.py.

    python tests/gpu_side.py FOLDER [--reduced]

Writes `<recipe>_<precision>.npz` with `losses` ([seeds, steps] float32) and `updates` ([seeds,
parameters] float32, the difference from the initial parameters), the same of several seeds as
`seeds.npz`, and `facts.json`. With --reduced, networks and batches are small.
"""

import dataclasses
import gc
import json
import sys
from pathlib import Path

import jax
import numpy as np

from flaxdigits.benchmark.ours import memory_bound, random_data
from flaxdigits.config import ExperimentConfig
from flaxdigits.experiments import list_experiments, load_experiment
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.overrides import apply_overrides
from flaxdigits.training.experiment import Experiment
from flaxdigits.training.memory import free_memory
from flaxdigits.training.program import StepRequest, TrainProgram

STEPS = 3
SEEDS = 3
ROUNDED = "mnist_cnn"  # the recipe that is trained in every precision


def load_recipe(name: str, *overrides: str, reduced: bool) -> ExperimentConfig:
    config = apply_overrides(load_experiment(name), overrides)
    if not reduced:
        return config
    widths = [f"model.{field}={','.join('4' * len(getattr(config.model, field)))}"
              for field in ("filters", "dense") if getattr(config.model, field, ())]
    return apply_overrides(config, ["train.batch_size=8", *widths])


def create(config: ExperimentConfig) -> Experiment:
    size, classes = (64, 15) if config.data.dataset == "chinese_mnist" else (28, 10)
    count = max(600, 2 * config.train.batch_size)
    return Experiment.create(
        config, random_data(config, (count, size, size, 1), classes, count // 6 * 5))


def flat(params) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.device_get(params))])


def first_steps(
    experiment: Experiment, program: TrainProgram, seeds: list[int]
) -> dict[str, np.ndarray]:
    runs = [experiment.with_config(dataclasses.replace(experiment.config, seed=seed))
            for seed in seeds]
    states = [run.initial_state() for run in runs]
    initial = [flat(state.params) for state in states]
    losses = []
    for step in range(STEPS):
        requests = [StepRequest(run.config.seed, step, state, run.epoch_indices(0), 1)
                    for run, state in zip(runs, states, strict=True)]
        output = program.steps(*program.arguments(requests, [1] * len(runs)))
        states, metrics = zip(*program.results(requests, output), strict=True)
        losses.append([float(found.sums.loss / found.sums.examples) for found in metrics])
    assert {leaf.dtype for leaf in jax.tree.leaves(states[0].params)} == {np.dtype(np.float32)}
    return {"losses": np.transpose(losses).astype(np.float32), "updates": np.stack([
        flat(state.params) - before for state, before in zip(states, initial, strict=True)])}


def memory_facts(experiment: Experiment, program: TrainProgram) -> dict[str, int | None]:
    analysis = program.steps.memory_analysis()
    gc.collect()
    stats = jax.local_devices()[0].memory_stats() or {}
    return {
        "arguments": analysis.argument_size_in_bytes, "free": free_memory(),
        "step": analysis.argument_size_in_bytes + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes - analysis.alias_size_in_bytes,
        "bound": memory_bound(experiment), "in_use": stats.get("bytes_in_use"),
        "limit": stats.get("bytes_limit")}


@pinned_settings()
def main(folder: Path, reduced: bool) -> None:
    facts: dict[str, object] = {"platform": jax.default_backend()}
    for name in list_experiments():
        for precision in ("fp32", "tf32", "bf16") if name == ROUNDED else ("fp32",):
            experiment = create(load_recipe(
                name, f"train.precision={precision}", reduced=reduced))
            program = TrainProgram(experiment, 1)
            found = first_steps(experiment, program, [0])
            np.savez(folder / f"{name}_{precision}.npz", **found)
            if name == "kaggle_cnn":
                facts["memory"] = memory_facts(experiment, program)
    # On a CPU each seed is trained by itself unless train.seeds_per_call says otherwise.
    together = [f"train.seeds_per_call={SEEDS}"] if jax.default_backend() == "cpu" else []
    experiment = create(load_recipe("mnist_cnn", *together, reduced=reduced))
    single, several = TrainProgram(experiment, 1), TrainProgram(experiment, SEEDS)
    facts["seeds_per_call"] = several.runs_per_call
    np.savez(folder / "seeds.npz", **first_steps(experiment, several, list(range(SEEDS))))
    found = [first_steps(experiment, single, [seed]) for seed in range(SEEDS)]
    np.savez(folder / "single_runs.npz", **{
        key: np.concatenate([run[key] for run in found]) for key in ("losses", "updates")})
    (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--reduced" in sys.argv)
