"""The runs of a study as tasks of a Ray cluster.

Every variant and seed is a task of its own. All nodes see the study's folder under the same path
and have flaxdigits installed; each finds the data for itself, and data of another fingerprint are
refused. A run whose worker or node is lost is started again, there or elsewhere, and goes on from
its last checkpoint. On a CPU the sums of a product are divided among the cores that a run has:
with another number of them a result is the same but for rounding.
"""

import dataclasses
import importlib.util
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from flaxdigits.config import ExperimentConfig, from_dict, to_dict, validate
from flaxdigits.data.dataset import DataLocations, load_dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import load_experiment
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.patterns import expand_user
from flaxdigits.studies.ablation import Load, OnEnd, Pause
from flaxdigits.studies.seeds import seed_configs, unfinished, write_summary
from flaxdigits.studies.study import seed_workdir
from flaxdigits.training.interrupts import Interrupts
from flaxdigits.training.loop import Outcome, check_folders, train_many
from flaxdigits.training.parallel import ask_for_deterministic_kernels, first_line
from flaxdigits.training.run_folder import RunFolder

_log = logging.getLogger(__name__)

RETRIES = 5  # of a run whose worker or node was lost
SECONDS_PER_LOOK = 0.5  # at the runs that have ended, and at signals
SECONDS_TO_SAVE = 120  # that runs are given after a signal


@dataclasses.dataclass(frozen=True)
class RayCluster:
    """Runs a study, as `flaxdigits.studies.ablation.run_study` does on this machine alone.

    It is the cluster that this machine belongs to or that `RAY_ADDRESS` names; where there is
    none, Ray starts workers on this machine.

    Attributes:
      experiment: of the study, whose file may hold an architecture of its own.
      locations: where a worker looks for data.
      cpus: of each run.
      gpus: of each run.
    """

    experiment: str
    locations: DataLocations
    cpus: int = 1
    gpus: int = 0

    def __call__(
        self, configs: Mapping[str, ExperimentConfig], seeds: Sequence[int], workdir: Path,
        load: Load, on_end: OnEnd,
    ) -> Pause | None:
        """Trains what is not finished yet, as many runs at once as the cluster has room for.

        Raises:
          FlaxdigitsError: as `run_study` does; or Ray is not installed or cannot be reached, or a
            run was lost too often.
        """
        ray = _connected()
        try:
            runs = self._started(configs, seeds, workdir.absolute(), load)
            pause = self._train(ray, runs, on_end)
        finally:
            ray.shutdown()
        if pause is None:
            for variant in configs:
                write_summary(seed_workdir(workdir, variant), seeds)
        return pause

    def _started(
        self, configs: Mapping[str, ExperimentConfig], seeds: Sequence[int], workdir: Path,
        load: Load,
    ) -> dict[tuple[str, int], "RemoteRun"]:
        """What is left to run; the folders of all runs are checked, or begun."""
        runs, experiment, given = {}, self.experiment, self.locations
        if experiment.endswith(".py"):
            experiment = str(expand_user(experiment).absolute())
        locations = DataLocations(
            given.raw_data_dir and given.raw_data_dir.absolute(),
            given.data_dir and given.data_dir.absolute(), given.source)
        for variant, config in configs.items():
            folder = seed_workdir(workdir, variant)
            of_seeds = seed_configs(config, seeds, folder)
            check_folders(of_seeds, load(config))
            for path, one in of_seeds.items():
                begun = RunFolder(path)
                if not begun.is_begun():
                    with begun.locked():
                        begun.start(validate(one), {"data": load(config).description()})
            for seed, path in unfinished(folder, seeds).items():
                runs[variant, seed] = RemoteRun(
                    experiment, to_dict(of_seeds[path]), str(path), locations, self.cpus)
        return runs

    def _train(
        self, ray: ModuleType, runs: Mapping[tuple[str, int], "RemoteRun"],
        on_end: OnEnd,
    ) -> Pause | None:
        if not any(node["Alive"] and node["Resources"].get("CPU", 0) >= self.cpus
                   and node["Resources"].get("GPU", 0) >= self.gpus for node in ray.nodes()):
            _log.warning("no node of the Ray cluster has %d CPUs and %d GPUs: the runs wait for "
                         "one that has", self.cpus, self.gpus)
        task = ray.remote(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=RETRIES)(train_run)
        going = {task.remote(run): name for name, run in runs.items()}
        paused = False
        with Interrupts() as interrupts:
            try:
                while going and not interrupts.received:
                    ended, _ = ray.wait(list(going), timeout=SECONDS_PER_LOOK)
                    for one in ended:
                        name = going.pop(one)
                        outcome = _outcome(ray, one, name, runs[name])
                        if outcome is None or outcome.signal:  # its node is being taken away
                            going[task.remote(runs[name])] = name
                            continue
                        paused |= outcome.result is None and outcome.diverged is None
                        on_end(*name, outcome)
            finally:
                saved = _stop(ray, list(going))
            for one in saved:
                outcome = _outcome(ray, one, going[one], runs[going[one]])
                if outcome is not None:
                    number = interrupts.received if outcome.signal else None  # which was Ctrl-C
                    on_end(*going[one], dataclasses.replace(outcome, signal=number))
        if interrupts.received:
            return Pause(interrupts.received)
        return Pause(None) if paused else None


@dataclasses.dataclass(frozen=True)
class RemoteRun:
    """What a worker is sent of a run.

    Attributes:
      experiment: a name or an absolute path.
      config: as JSON values.
      workdir: absolute, of the run.
      locations: where to look for data.
      cpus: how many threads to use.
    """

    experiment: str
    config: Mapping[str, Any]
    workdir: str
    locations: DataLocations
    cpus: int


@pinned_settings()
def train_run(run: RemoteRun) -> Outcome | None:
    """In a worker: trains a run to its end, or on from its last checkpoint.

    None if it was paused before it began.
    """
    # As many as XLA's client on the CPU starts threads: xla/pjrt/utils.cc, DefaultThreadPoolSize.
    os.environ["NPROC"] = str(run.cpus)
    load_experiment(run.experiment)  # registers the components of its file
    config = from_dict(run.config)
    if config.train.deterministic:
        ask_for_deterministic_kernels()
    path = Path(run.workdir)
    return train_many({path: config}, load_dataset(config.data, run.locations)).get(path)


def _connected() -> ModuleType:
    """The module `ray`, connected to a cluster."""
    if importlib.util.find_spec("ray") is None:
        raise FlaxdigitsError(
            "--executor=ray needs Ray, which is not installed: pip install -e '.[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray  # heavy, and not needed locally

    try:
        with warnings.catch_warnings():  # JAX's of a fork, which here becomes another program
            warnings.simplefilter("ignore", RuntimeWarning)
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # each version has its own kinds
        raise FlaxdigitsError(f"cannot reach the Ray cluster: {first_line(error)}") from error
    return ray


def _stop(ray: ModuleType, tasks: list[Any]) -> list[Any]:
    """Cancels tasks and gives those that end in time; one that is going has saved its run."""
    for task in tasks:
        ray.cancel(task)  # which a run takes for Ctrl-C
    return ray.wait(tasks, num_returns=len(tasks), timeout=SECONDS_TO_SAVE)[0] if tasks else []


def _outcome(
    ray: ModuleType, task: Any, name: tuple[str, int], run: RemoteRun
) -> Outcome | None:
    """What a task that has ended came to; None if it was paused before it began."""
    label = f"{name[0]}, seed {name[1]}"
    try:
        outcome = ray.get(task)
    except ray.exceptions.TaskCancelledError:
        return None
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, FlaxdigitsError):
            raise FlaxdigitsError(f"{label}: {error.cause}") from error
        raise
    except ray.exceptions.RayError as error:
        raise FlaxdigitsError(
            f"{label}: its worker was lost {RETRIES + 1} times ({first_line(error)}); the same "
            "command goes on from what was saved") from error
    if outcome is not None and outcome.result is not None and not RunFolder(
            Path(run.workdir)).result():
        raise FlaxdigitsError(
            f"{label}: ended on another node, and {run.workdir} has no result.json: --workdir must "
            "be a folder that all nodes share")
    return outcome
