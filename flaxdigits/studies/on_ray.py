"""Trains the runs of a study as tasks of a Ray cluster.

Every pair of variant and seed is a separate task. All nodes need flaxdigits and access to the
folder of the study under the same path. Each node locates the data itself; data with another
fingerprint are rejected. A run whose worker or node is lost is started again, on the same or
another node, and resumes from its last checkpoint. On a CPU the number of cores of a run changes
the order in which matrix products are summed, and therefore the rounding of the results.
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

from flaxdigits.command import command_line
from flaxdigits.config import ExperimentConfig, from_dict, to_dict
from flaxdigits.data.dataset import DataLocations, load_dataset
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import load_experiment
from flaxdigits.jax_settings import pinned_settings
from flaxdigits.patterns import expand_user
from flaxdigits.progress import NO_PROGRESS, Progress
from flaxdigits.studies.ablation import LoadDataset, OnRunEnd, Pause
from flaxdigits.studies.seeds import seed_configs, unfinished, write_summary
from flaxdigits.studies.study import seed_workdir
from flaxdigits.training.found_run import find_run
from flaxdigits.training.interrupts import Interrupts
from flaxdigits.training.parallel import enable_deterministic_kernels, first_line
from flaxdigits.training.results import Outcome, ReportWriter, no_report
from flaxdigits.training.run_folder import RunFolder
from flaxdigits.training.runs import check_folders, record_config_or_length, train_many

_log = logging.getLogger(__name__)

RETRIES = 5  # how often a run whose worker or node was lost is started again
POLL_SECONDS = 0.5  # between checks for finished runs and signals
SECONDS_TO_SAVE = 120  # how long runs may take to save their state after a signal


@dataclasses.dataclass(frozen=True)
class RayCluster:
    """Runs a study on a Ray cluster; `flaxdigits.studies.ablation.run_study` is the local version.

    Uses the cluster that this machine belongs to or the one at `RAY_ADDRESS`. If there is none, Ray
    starts workers on this machine.

    Attributes:
      experiment: the name or path of the experiment, which may register custom components.
      locations: where workers look for data.
      cpus: the number of CPU cores of each run.
      gpus: the number of GPUs of each run.
    """

    experiment: str
    locations: DataLocations
    cpus: int = 1
    gpus: int = 0

    def __call__(
        self, configs: Mapping[str, ExperimentConfig], seeds: Sequence[int], workdir: Path,
        load: LoadDataset, on_end: OnRunEnd, write_report: ReportWriter = no_report,
        progress: Progress = NO_PROGRESS,
    ) -> Pause | None:
        """Trains the unfinished runs, as many at the same time as the cluster has resources for.

        The arguments and the returned value are those of `run_study`.

        Raises:
          FlaxdigitsError: as `run_study` does; also if Ray is not installed, the cluster cannot be
            reached, or a run was lost more than `RETRIES` times.
        """
        with progress.stage("connecting to Ray"):
            ray = _connect()
        try:
            runs = self._prepare_runs(configs, seeds, workdir.absolute(), load, write_report)
            pause = self._train(ray, runs, on_end, progress)
        finally:
            ray.shutdown()
        if pause is None:
            for variant in configs:
                write_summary(seed_workdir(workdir, variant), seeds)
        return pause

    def _prepare_runs(
        self, configs: Mapping[str, ExperimentConfig], seeds: Sequence[int], workdir: Path,
        load: LoadDataset, write_report: ReportWriter,
    ) -> dict[tuple[str, int], "RemoteRun"]:
        """Checks all run folders, creates the missing ones, and returns the unfinished runs."""
        runs, experiment = {}, self.experiment
        if experiment.endswith(".py"):
            experiment = str(expand_user(experiment).absolute())
        raw_data_dir, data_dir = self.locations.raw_data_dir, self.locations.data_dir
        locations = DataLocations(
            raw_data_dir and raw_data_dir.absolute(), data_dir and data_dir.absolute(),
            self.locations.source)
        for variant, config in configs.items():
            variant_folder = seed_workdir(workdir, variant)
            configs_by_path = seed_configs(config, seeds, variant_folder)
            check_folders(configs_by_path, load(config))
            for path, seed_config in configs_by_path.items():
                folder = RunFolder(path)
                found = find_run(folder, seed_config)
                if found is None or found.old_length_config is not None:
                    with folder.locked():
                        dataset = load(config)
                        record_config_or_length(folder, seed_config, dataset, {
                            "data": dataset.description(), "command": command_line()})
            for seed, path in unfinished(variant_folder, seeds).items():
                runs[variant, seed] = RemoteRun(
                    experiment, to_dict(configs_by_path[path]), str(path), locations, self.cpus,
                    write_report)
        return runs

    def _train(
        self, ray: ModuleType, runs: Mapping[tuple[str, int], "RemoteRun"],
        on_end: OnRunEnd, progress: Progress,
    ) -> Pause | None:
        """Trains runs on the cluster until all have ended, or a signal is received."""
        if not any(node["Alive"] and node["Resources"].get("CPU", 0) >= self.cpus
                   and node["Resources"].get("GPU", 0) >= self.gpus for node in ray.nodes()):
            _log.warning("no node of the Ray cluster has %d CPUs and %d GPUs: the runs wait for "
                         "one that has", self.cpus, self.gpus)
        task = ray.remote(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=RETRIES)(train_remote_run)
        pending = {task.remote(run): name for name, run in runs.items()}
        paused = False
        with (Interrupts() as interrupts,
              progress.stage("runs on Ray: ended", len(runs)) as advance):
            try:
                while pending and not interrupts.received:
                    ended, _ = ray.wait(list(pending), timeout=POLL_SECONDS)
                    for reference in ended:
                        name = pending.pop(reference)
                        outcome = _outcome(ray, reference, name, runs[name])
                        if outcome is None or outcome.signal:  # its node shuts down: start it again
                            pending[task.remote(runs[name])] = name
                            continue
                        paused |= outcome.result is None and outcome.diverged is None
                        on_end(*name, outcome)
                        advance(len(runs) - len(pending))
            finally:
                saved = _cancel(ray, list(pending))
            for reference in saved:
                name = pending[reference]
                outcome = _outcome(ray, reference, name, runs[name])
                if outcome is not None:
                    # Ray interrupts a task with SIGINT, whatever signal this process received.
                    number = interrupts.received if outcome.signal else None
                    on_end(*name, dataclasses.replace(outcome, signal=number))
        if interrupts.received:
            return Pause(interrupts.received)
        return Pause(None) if paused else None


@dataclasses.dataclass(frozen=True)
class RemoteRun:
    """The description of a run that is sent to a worker.

    Attributes:
      experiment: the name or absolute path of the experiment.
      config: the config as JSON values.
      workdir: the absolute path of the run folder.
      locations: where to look for data.
      cpus: the number of threads to use.
      write_report: see `flaxdigits.training.runs.train_many`; a function of a module.
    """

    experiment: str
    config: Mapping[str, Any]
    workdir: str
    locations: DataLocations
    cpus: int
    write_report: ReportWriter = no_report


@pinned_settings()
def train_remote_run(run: RemoteRun) -> Outcome | None:
    """Trains or resumes a run; this function is executed by a worker.

    Returns:
      The outcome, or None if the run was paused before its first step.
    """
    # XLA's CPU client starts this number of threads: xla/pjrt/utils.cc, DefaultThreadPoolSize.
    os.environ["NPROC"] = str(run.cpus)
    load_experiment(run.experiment)  # registers the components of its file
    config = from_dict(run.config)
    if config.train.deterministic:
        enable_deterministic_kernels()
    path = Path(run.workdir)
    return train_many(
        {path: config}, load_dataset(config.data, run.locations),
        write_report=run.write_report).get(path)


def _connect() -> ModuleType:
    """Connects to a cluster and returns the module `ray`."""
    if importlib.util.find_spec("ray") is None:
        raise FlaxdigitsError(
            "executor=ray needs Ray, which is not installed: pip install -e '.[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray  # an optional dependency, which takes over a second to import

    try:
        with warnings.catch_warnings():  # JAX warns of a fork, but here it is followed by an exec
            warnings.simplefilter("ignore", RuntimeWarning)
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # the types differ between versions of Ray
        raise FlaxdigitsError(f"cannot reach the Ray cluster: {first_line(error)}") from error
    return ray


def _cancel(ray: ModuleType, tasks: list[Any]) -> list[Any]:
    """Cancels tasks, and returns those that have ended within `SECONDS_TO_SAVE`.

    A task that is running saves the state of its run before it ends.
    """
    for task in tasks:
        ray.cancel(task)  # has the same effect as Ctrl-C
    return ray.wait(tasks, num_returns=len(tasks), timeout=SECONDS_TO_SAVE)[0] if tasks else []


def _outcome(
    ray: ModuleType, task: Any, name: tuple[str, int], run: RemoteRun
) -> Outcome | None:
    """Returns the outcome of a task that has ended; None if it was paused before its first step."""
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
            "command resumes from the last checkpoints") from error
    if outcome is not None and outcome.result is not None and not RunFolder(
            Path(run.workdir)).result():
        raise FlaxdigitsError(
            f"{label}: the run has finished on another node, but {run.workdir} has no result.json "
            "on this node: workdir must be a folder that all nodes share")
    return outcome
