"""Defines the command line flags, and parses them to a dataclass that is passed to the modes."""

import dataclasses
from pathlib import Path
from typing import Literal

from absl import flags

from flaxdigits.api.arguments import SourceName
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import ABLATIONS, list_experiments
from flaxdigits.patterns import expand_user

HELP = "python launch.py --experiment=NAME [--mode=MODE] [--set field=value ...]\n"
MODES = ("train", "eval", "report", "summary", "data", "config", "prepare", "compare",
         "folds", "benchmark", "growth", "replicate", "predict", "export")
WITH_SEEDS = ("train", "folds", "replicate")
WITH_CHECKPOINT = ("eval", "predict", "export")

_EXPERIMENT = flags.DEFINE_string(
    "experiment", None, "The name of a shipped experiment (see --list), or the path of an "
    "experiment file, ending in .py.")
_MODE = flags.DEFINE_string("mode", "train", f"What to do: one of {', '.join(MODES)}.")
_LIST = flags.DEFINE_bool("list", False, "Print the shipped experiments and studies, and exit.")
_WORKDIR = flags.DEFINE_multi_string(
    "workdir", [], "The run folder; default: runs/<experiment>. Repeatable with --mode=compare.")
_SET = flags.DEFINE_multi_string(
    "set", [], "Set a field of the config, as in --set train.epochs=5. Repeatable.")
_ABLATION = flags.DEFINE_string(
    "ablation", None, "Run a study: the name of a shipped one (see --list), or the path of a file.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print the missing runs of a study or replication, and how long they take.")
_EXECUTOR = flags.DEFINE_enum(
    "executor", "local", ["local", "ray"],
    "Train the runs of a study on this machine, or on a Ray cluster.")
_CPUS_PER_RUN = flags.DEFINE_integer(
    "cpus_per_run", 1, "The number of CPU cores of each run on Ray.", lower_bound=1)
_GPUS_PER_RUN = flags.DEFINE_integer(
    "gpus_per_run", 0, "The number of GPUs of each run on Ray.", lower_bound=0)
_SEEDS = flags.DEFINE_string(
    "seeds", None, "Train several seeds, as in --seeds=0..9 or --seeds=0,3,7.")
_COLLECT = flags.DEFINE_multi_string(
    "collect", [], "replicate: use the finished runs that match this pattern, instead of those in "
    "runs/: run folders, records, or folders that contain them. Repeatable.")
_COLLECT_ONLY = flags.DEFINE_bool(
    "collect_only", False, "replicate: train nothing, and report only the finished runs.")
_UPDATE = flags.DEFINE_string(
    "update", None, "replicate: replace the table between the markers of this Markdown file.")
_DATA = flags.DEFINE_enum(
    "data", "auto", ["auto", "real", "synthetic", "drawn"],
    "Use real data, or synthetic data that flaxdigits generates; auto: real data if there are any, "
    "else synthetic data. drawn is the old name of synthetic.")
_RAW_DATA_DIR = flags.DEFINE_string(
    "raw_data_dir", None, "The folder of the raw files; default: $FLAXDIGITS_RAW_DATA.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "The folder of prepared data; default: $TFDS_DATA_DIR, or "
    "~/tensorflow_datasets if it is not set.")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "last", "eval, predict, export: the checkpoint to use: last, best or a step; "
    "with eval also all.")
_IMAGES = flags.DEFINE_multi_string(
    "images", [], "predict: image files, as in --images='scans/*.png'. Repeatable.")
_FIGURE = flags.DEFINE_bool(
    "figure", False, "predict: draw each image next to the input of the network.")
_FORMAT = flags.DEFINE_enum(
    "format", "table", ["table", "json"], "predict: the format of the output.")
_PEERS = flags.DEFINE_bool(
    "peers", False, "benchmark: also time Keras on TensorFlow and PyTorch. Needs the extra bench.")
_PROFILE = flags.DEFINE_bool(
    "profile", False, "Write a trace of some training steps, for TensorBoard or Perfetto, to "
    "<workdir>/profile.")
_TENSORBOARD = flags.DEFINE_bool(
    "tensorboard", True, "Write TensorBoard event files to <workdir>/tensorboard, if tensorboardX "
    "is installed.")
_LOGS = flags.DEFINE_enum(
    "logs", "flaxdigits", ["flaxdigits", "all", "own"],
    "Print the log messages of flaxdigits, or those of all libraries. own is the old name of "
    "flaxdigits.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, for a run of several processes.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "The number of processes of the run.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "The index of this process, from 0.")
_CONNECT_TIMEOUT = flags.DEFINE_integer(
    "connect_timeout", 45, "How many seconds the processes of a run wait for each other at the "
    "start.", lower_bound=1)


@dataclasses.dataclass(frozen=True)
class Options:
    """The parsed command line."""

    experiment: str | None = None
    mode: str = "train"
    workdirs: tuple[Path, ...] = ()
    overrides: tuple[str, ...] = ()
    ablation: str | None = None
    dry_run: bool = False
    executor: Literal["local", "ray"] = "local"
    cpus_per_run: int = 1
    gpus_per_run: int = 0
    seeds: str | None = None
    collect: tuple[str, ...] = ()
    collect_only: bool = False
    update: Path | None = None
    data: SourceName = "auto"
    raw_data_dir: Path | None = None
    data_dir: Path | None = None
    checkpoint: str = "last"
    images: tuple[str, ...] = ()
    figure: bool = False
    format: str = "table"
    peers: bool = False
    profile: bool = False
    tensorboard: bool = True
    logs: str = "flaxdigits"
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    connect_timeout: int = 45

    @property
    def command(self) -> str:
        """The module of `flaxdigits.cli` that executes the command."""
        if self.ablation is not None:
            return "ablation"
        return "seeds" if self.mode == "train" and self.seeds is not None else self.mode

    def workdir(self) -> Path:
        """Returns the value of --workdir.

        Raises:
          FlaxdigitsError: if the flag is not set, or is set several times.
        """
        if len(self.workdirs) != 1:
            raise FlaxdigitsError(
                f"--mode={self.mode} needs one --workdir, got {len(self.workdirs)}")
        return self.workdirs[0]

    def optional_workdir(self) -> Path | None:
        """Returns the value of --workdir, or None if the flag is not set.

        Raises:
          FlaxdigitsError: if the flag is set several times.
        """
        return self.workdir() if self.workdirs else None


def parse(arguments: list[str]) -> Options | str:
    """Parses a command line.

    Args:
      arguments: the name of the program and its arguments, as in sys.argv.

    Returns:
      The options, or the text to print for --help and --list.

    Raises:
      FlaxdigitsError: if a flag is unknown, has an invalid value, or does not fit the mode; or if
        there is an argument that is not a flag.
    """
    if {"--help", "-help", "-h", "--helpfull", "--helpshort"} & set(arguments[1:]):
        return f"{HELP}\n{flags.FLAGS.get_help(include_special_flags=False)}"
    try:
        words = flags.FLAGS(arguments)
    # ValueError: a flag such as --nolist=1; OSError: a --flagfile that cannot be read.
    except (flags.Error, ValueError, OSError) as error:
        raise FlaxdigitsError(" ".join(str(error).split())) from error
    if len(words) > 1:
        raise FlaxdigitsError(
            f"unexpected argument {words[1]!r}: options have the form --name=value, see --help")
    if _LIST.value:
        return "\n\n".join(
            "\n".join([f"{flag}=", *(f"  {name:18} {title}" for name, title in listed.items())])
            for flag, listed in (("--experiment", list_experiments()),
                                 ("--ablation", list_experiments(ABLATIONS))))
    if _MODE.value not in MODES:
        raise FlaxdigitsError(f"--mode must be one of {', '.join(MODES)}, got {_MODE.value!r}")
    for flag in (_COORDINATOR, _NUM_PROCESSES, _PROCESS_ID):
        if flag.value is not None and (
                _MODE.value != "train" or _SEEDS.value is not None or _ABLATION.value is not None):
            raise FlaxdigitsError(
                f"--{flag.name} is only for --mode=train with a single run: several seeds, studies "
                "and all other modes use one process")
    for flag in (_PROFILE, _TENSORBOARD):
        if flag.present and _ABLATION.value is not None:
            raise FlaxdigitsError(f"--{flag.name} is not for --ablation, which only prints a line "
                                  "for each run")
    if _PROFILE.value and _MODE.value != "train":
        raise FlaxdigitsError(f"--profile is only for --mode=train, got --mode={_MODE.value}")
    if _PEERS.value and _MODE.value != "benchmark":
        raise FlaxdigitsError(f"--peers is only for --mode=benchmark, got --mode={_MODE.value}")
    for flag in (_IMAGES, _FIGURE, _FORMAT):
        if flag.value != flag.default and _MODE.value != "predict":
            raise FlaxdigitsError(
                f"--{flag.name} is only for --mode=predict, got --mode={_MODE.value}")
    if _CHECKPOINT.present and _MODE.value not in WITH_CHECKPOINT:
        raise FlaxdigitsError(f"--checkpoint is for --mode={' or '.join(WITH_CHECKPOINT)}, not for "
                              f"--mode={_MODE.value}; --set checkpoint.select=best trains a run "
                              "whose result is that of the best checkpoint")
    if _SEEDS.value is not None and any(
            override.partition("=")[0].strip() == "seed" for override in _SET.value):
        raise FlaxdigitsError("--seeds sets the seeds: leave out --set seed=")
    if "" in _WORKDIR.value:
        raise FlaxdigitsError("--workdir is empty: pass a folder, or leave it out")
    if _SEEDS.value is not None and _MODE.value not in WITH_SEEDS:
        raise FlaxdigitsError(
            f"--seeds is for --mode={' or '.join(WITH_SEEDS)}, not for --mode={_MODE.value}")
    if _ABLATION.value is not None and (
            _EXPERIMENT.value is not None or _MODE.value != "train"):
        raise FlaxdigitsError(
            "--ablation has its own experiment and trains its own runs: leave out --experiment "
            "and --mode")
    if _DRY_RUN.value and _ABLATION.value is None and _MODE.value != "replicate":
        raise FlaxdigitsError("--dry_run is for --ablation and --mode=replicate")
    if _EXECUTOR.value != "local" and _ABLATION.value is None:
        raise FlaxdigitsError("--executor is for --ablation")
    for flag in (_CPUS_PER_RUN, _GPUS_PER_RUN):
        if flag.value != flag.default and _EXECUTOR.value != "ray":
            raise FlaxdigitsError(f"--{flag.name} is for --executor=ray")
    for flag in (_COLLECT, _COLLECT_ONLY, _UPDATE):
        if flag.value and _MODE.value != "replicate":
            raise FlaxdigitsError(
                f"--{flag.name} is only for --mode=replicate, got --mode={_MODE.value}")
    raw = _RAW_DATA_DIR.value
    return Options(
        experiment=_EXPERIMENT.value, mode=_MODE.value,
        workdirs=tuple(expand_user(path) for path in _WORKDIR.value),
        overrides=tuple(_SET.value), ablation=_ABLATION.value,
        dry_run=_DRY_RUN.value, executor=_EXECUTOR.value, cpus_per_run=_CPUS_PER_RUN.value,
        gpus_per_run=_GPUS_PER_RUN.value, seeds=_SEEDS.value,
        collect=tuple(_COLLECT.value), collect_only=_COLLECT_ONLY.value,
        update=expand_user(_UPDATE.value) if _UPDATE.value else None,
        data="synthetic" if _DATA.value == "drawn" else _DATA.value,
        raw_data_dir=expand_user(raw) if raw else None,
        data_dir=expand_user(_DATA_DIR.value) if _DATA_DIR.value else None,
        checkpoint=_CHECKPOINT.value, images=tuple(_IMAGES.value), figure=_FIGURE.value,
        format=_FORMAT.value, peers=_PEERS.value, profile=_PROFILE.value,
        tensorboard=_TENSORBOARD.value, logs="flaxdigits" if _LOGS.value == "own" else _LOGS.value,
        coordinator=_COORDINATOR.value, num_processes=_NUM_PROCESSES.value,
        process_id=_PROCESS_ID.value, connect_timeout=_CONNECT_TIMEOUT.value)
