"""Defines the command line flags, and parses them to a dataclass that is passed to the modes."""

import dataclasses
from pathlib import Path
from typing import Literal, TypeVar, cast

from absl import flags

from flaxdigits.api.arguments import SourceName
from flaxdigits.cli.help import Flag, help_text, unknown_flag
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import ABLATIONS, list_experiments
from flaxdigits.patterns import expand_user

MODES = {
    "train": "Trains or resumes a run, evaluates it and writes its report.",
    "eval": "Evaluates checkpoints of a run on all its splits.",
    "predict": "Classifies image files with the network of a run.",
    "report": "Writes the report of a finished run again.",
    "compare": "Prints a table of several runs, as in --workdir='runs/*'; repeatable.",
    "export": "Exports the network of a run to files that can be used without flaxdigits.",
    "config": "Prints every field of the config with its value, meaning, bounds and choices.",
    "summary": "Prints the layers of the network.",
    "data": "Saves a grid of preprocessed training images of each class, and prints the number of "
            "images of each class and of writers in every split.",
    "prepare": "Downloads, verifies and prepares the data.",
    "folds": "Trains or resumes all folds of writers or examples, and reports the errors.",
    "replicate": "Collects and trains the runs of the replications, and writes the report.",
    "benchmark": "Times train steps, and the time to the first one.",
    "growth": "Measures how the cost grows with examples, batch size and parameters.",
}
ABLATION = "ablation"  # a study takes flags as a mode does, and is chosen by --ablation
# The modes whose config is that of --experiment or --workdir, and those that read data.
TAKES_CONFIG = "train config summary data prepare folds replicate benchmark growth"
READS_DATA = "train eval summary data prepare folds replicate benchmark growth ablation config"

ADVICE = {  # what to do in place of a flag that a mode does not take
    "checkpoint": "; --set checkpoint.select=best evaluates the best checkpoint after training",
    "set": "; this mode uses the configs of the runs: leave out --set",
}

HELP = {"--help", "-help", "-h", "--helpshort"}

FLAGS: dict[str, Flag] = {}  # in the order of --help
Holder = TypeVar("Holder", bound=flags.FlagHolder)


def _flag(holder: Holder, value: str = "", modes: str = "") -> Holder:
    """Records which modes take a flag, and returns its holder.

    Args:
      holder: the holder of the flag, which absl returns when the flag is defined.
      value: see `Flag`.
      modes: the names of the modes that take it; empty: all.
    """
    FLAGS[holder.name] = Flag(value, tuple(modes.split()) or (*MODES, ABLATION))
    return holder


_EXPERIMENT = _flag(flags.DEFINE_string(
    "experiment", None, "A built-in experiment (see --list), or the path of an experiment file "
    "ending in .py."), "NAME", f"{TAKES_CONFIG} eval predict report export")
_MODE = _flag(flags.DEFINE_string("mode", "train", "What to do; see the modes below."), "MODE")
_SET = _flag(flags.DEFINE_multi_string(
    "set", [], "Set a field of the config, as in --set train.epochs=5. Repeatable. --mode=config "
    "lists the fields."), "FIELD=VALUE", f"{TAKES_CONFIG} eval report ablation")
_WORKDIR = _flag(flags.DEFINE_multi_string(
    "workdir", [], "The folder of the run; default: runs/<experiment>."), "FOLDER")
_DATA = _flag(flags.DEFINE_enum(
    "data", "auto", ["auto", "real", "synthetic", "drawn"],
    "Use real data, or synthetic data that flaxdigits generates; auto: real data if there are any, "
    "else synthetic data. drawn is the old name of synthetic."),
    "auto|real|synthetic", READS_DATA)
_RAW_DATA_DIR = _flag(flags.DEFINE_string(
    "raw_data_dir", None, "The folder of the raw files; default: $FLAXDIGITS_RAW_DATA."),
    "FOLDER", f"{READS_DATA} report")
_DATA_DIR = _flag(flags.DEFINE_string(
    "data_dir", None, "The folder of prepared data; default: $TFDS_DATA_DIR, or "
    "~/tensorflow_datasets."), "FOLDER", f"{READS_DATA} report")
_LIST = _flag(flags.DEFINE_bool("list", False, "Print the built-in experiments and studies."))
_LOGS = _flag(flags.DEFINE_enum(
    "logs", "flaxdigits", ["flaxdigits", "all", "own"],
    "Print the log messages of flaxdigits, or those of all libraries. own is the old name of "
    "flaxdigits."), "flaxdigits|all")

_SEEDS = _flag(flags.DEFINE_string(
    "seeds", None, "Train several seeds, as in --seeds=0..9 or --seeds=0,3,7."),
    "SEEDS", "train folds replicate ablation")
_TENSORBOARD = _flag(flags.DEFINE_bool(
    "tensorboard", True, "Write TensorBoard event files to <workdir>/tensorboard, if tensorboardX "
    "is installed."), modes="train folds replicate")
_PROFILE = _flag(flags.DEFINE_bool(
    "profile", False, "Write a trace of some training steps, for TensorBoard or Perfetto, to "
    "<workdir>/profile."), modes="train")
_COORDINATOR = _flag(flags.DEFINE_string(
    "coordinator", None, "The address of process 0, for a run of several processes."),
    "HOST:PORT", "train")
_NUM_PROCESSES = _flag(flags.DEFINE_integer(
    "num_processes", None, "The number of processes of the run."), "N", "train")
_PROCESS_ID = _flag(flags.DEFINE_integer(
    "process_id", None, "The index of this process, from 0."), "N", "train")
_CONNECT_TIMEOUT = _flag(flags.DEFINE_integer(
    "connect_timeout", 45, "How many seconds the processes wait for each other at the start.",
    lower_bound=1), "SECONDS", "train")
_CHECKPOINT = _flag(flags.DEFINE_string(
    "checkpoint", "last", "The checkpoint to use: last, best (by validation accuracy) or a step; "
    "with --mode=eval also all."), "CHECKPOINT", "eval predict export")
_IMAGES = _flag(flags.DEFINE_multi_string(
    "images", [], "Image files, as in --images='scans/*.png'. Repeatable."), "PATTERN", "predict")
_FIGURE = _flag(flags.DEFINE_bool(
    "figure", False, "Draw each image next to the input of the network."), modes="predict")
_FORMAT = _flag(flags.DEFINE_enum(
    "format", None, ["table", "json"], "The format of the output; default: table, but json for "
    "--mode=config in a pipe or a file."), modes="predict config")
_COLLECT = _flag(flags.DEFINE_multi_string(
    "collect", [], "Use the finished runs that match this pattern, instead of those in runs/: run "
    "folders, records, or folders that contain them. Repeatable."), "PATTERN", "replicate")
_COLLECT_ONLY = _flag(flags.DEFINE_bool(
    "collect_only", False, "Train nothing, and report only the finished runs."), modes="replicate")
_UPDATE = _flag(flags.DEFINE_string(
    "update", None, "Replace the report between the markers of this Markdown file."),
    "FILE", "replicate")
_DRY_RUN = _flag(flags.DEFINE_bool(
    "dry_run", False, "Print the missing runs, and how long they take."),
    modes="replicate ablation")
_PEERS = _flag(flags.DEFINE_bool(
    "peers", False, "Also time Keras on TensorFlow and PyTorch. Needs the extra bench."),
    modes="benchmark")
_SUITE = _flag(flags.DEFINE_string(
    "suite", None, "A set of measurements in place of the usual ones. gpu: a train step in every "
    "precision, ten seeds at the same time, and the time that mnist_speedrun takes to its "
    "accuracy; --peers compares with PyTorch only."), "NAME", "benchmark")
_ABLATION = _flag(flags.DEFINE_string(
    "ablation", None, "Run or resume a study: a built-in one (see --list), or the path of a file "
    "ending in .py."), "NAME", ABLATION)
_EXECUTOR = _flag(flags.DEFINE_enum(
    "executor", "local", ["local", "ray"],
    "Train the runs on this machine, or on a Ray cluster."), modes=ABLATION)
_CPUS_PER_RUN = _flag(flags.DEFINE_integer(
    "cpus_per_run", 1, "The number of CPU cores of each run on Ray.", lower_bound=1),
    "N", ABLATION)
_GPUS_PER_RUN = _flag(flags.DEFINE_integer(
    "gpus_per_run", 0, "The number of GPUs of each run on Ray.", lower_bound=0), "N", ABLATION)


@dataclasses.dataclass(frozen=True)
class Options:
    """The parsed command line.

    Attributes:
      program: the path of the program, `sys.argv[0]`; the others are the values of the flags.
    """

    program: str = "launch.py"
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
    format: str | None = None
    peers: bool = False
    suite: str | None = None
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
        if not self.workdirs:
            raise FlaxdigitsError(f"{self._command_flag()} needs one --workdir, got none")
        return self._only_workdir()

    def optional_workdir(self) -> Path | None:
        """Returns the value of --workdir, or None if the flag is not set.

        Raises:
          FlaxdigitsError: if the flag is set several times.
        """
        return self._only_workdir() if self.workdirs else None

    def _only_workdir(self) -> Path:
        first, *more = self.workdirs
        if more:
            raise FlaxdigitsError(
                f"{self._command_flag()} takes only one --workdir, got {len(self.workdirs)}")
        return first

    def _command_flag(self) -> str:
        return _command_flag(self.mode if self.ablation is None else ABLATION)


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
    if {"--helpfull", "-helpfull"} & set(arguments[1:]):
        return flags.FLAGS.get_help()
    for argument in arguments[1:]:
        flag, equals, value = argument.partition("=")
        if equals and flag in HELP | {"--helpfull", "-helpfull"}:
            raise FlaxdigitsError(
                f"{flag} takes no value, got {value!r}: --help lists all modes and flags, and "
                "--help --mode=MODE those of one mode")
    is_help = bool(HELP & set(arguments[1:]))
    try:
        words = flags.FLAGS([word for word in arguments if word not in HELP], known_only=is_help)
    except flags.UnrecognizedFlagError as error:
        raise FlaxdigitsError(unknown_flag(error.flagvalue, arguments, FLAGS)) from error
    # ValueError: a flag such as --nolist=1; OSError: a --flagfile that cannot be read.
    except (flags.Error, ValueError, OSError) as error:
        raise FlaxdigitsError(" ".join(str(error).split())) from error
    if _MODE.value not in MODES:
        raise FlaxdigitsError(f"--mode must be one of {', '.join(MODES)}, got {_MODE.value!r}")
    if is_help:
        chosen = ABLATION if _ABLATION.value else _MODE.value if _MODE.present else None
        return help_text(FLAGS, MODES, chosen)
    if len(words) > 1:
        raise FlaxdigitsError(
            f"unexpected argument {words[1]!r}: options have the form --name=value, see --help")
    if _LIST.value:
        return "\n\n".join(
            "\n".join([f"{flag}=", *(f"  {name:18} {title}" for name, title in listed.items())])
            for flag, listed in (("--experiment", list_experiments()),
                                 ("--ablation", list_experiments(ABLATIONS))))
    if _ABLATION.value is not None and (
            _EXPERIMENT.present or _MODE.value != "train"):
        raise FlaxdigitsError(
            "--ablation has its own experiment and trains its own runs: leave out --experiment "
            "and --mode")
    _check_taken(ABLATION if _ABLATION.value is not None else _MODE.value)
    if _SEEDS.value is not None:
        for flag in (_COORDINATOR, _NUM_PROCESSES, _PROCESS_ID):
            if flag.present:
                raise FlaxdigitsError(
                    f"--{flag.name} is only for --mode=train with a single run: several seeds use "
                    "one process")
        if any(override.partition("=")[0].strip() == "seed" for override in _SET.value):
            raise FlaxdigitsError("--seeds sets the seeds: leave out --set seed=")
    if "" in _WORKDIR.value:
        raise FlaxdigitsError("--workdir is empty: pass a folder, or leave it out")
    for flag in (_CPUS_PER_RUN, _GPUS_PER_RUN):
        if flag.value != flag.default and _EXECUTOR.value != "ray":
            raise FlaxdigitsError(f"--{flag.name} is for --executor=ray")
    raw = _RAW_DATA_DIR.value
    return Options(
        program=arguments[0], experiment=_EXPERIMENT.value, mode=_MODE.value,
        workdirs=tuple(expand_user(path) for path in _WORKDIR.value),
        overrides=tuple(_SET.value), ablation=_ABLATION.value,
        dry_run=_DRY_RUN.value, executor=cast(Literal["local", "ray"], _EXECUTOR.value),
        cpus_per_run=_CPUS_PER_RUN.value, gpus_per_run=_GPUS_PER_RUN.value, seeds=_SEEDS.value,
        collect=tuple(_COLLECT.value), collect_only=_COLLECT_ONLY.value,
        update=expand_user(_UPDATE.value) if _UPDATE.value else None,
        data=cast(SourceName, "synthetic" if _DATA.value == "drawn" else _DATA.value),
        raw_data_dir=expand_user(raw) if raw else None,
        data_dir=expand_user(_DATA_DIR.value) if _DATA_DIR.value else None,
        checkpoint=_CHECKPOINT.value, images=tuple(_IMAGES.value), figure=_FIGURE.value,
        format=_FORMAT.value, peers=_PEERS.value,
        suite=_SUITE.value, profile=_PROFILE.value,
        tensorboard=_TENSORBOARD.value, logs="flaxdigits" if _LOGS.value == "own" else _LOGS.value,
        coordinator=_COORDINATOR.value, num_processes=_NUM_PROCESSES.value,
        process_id=_PROCESS_ID.value, connect_timeout=_CONNECT_TIMEOUT.value)


def _command_flag(mode: str) -> str:
    """Returns the flag that selects a mode, with its value; for an ablation, only its name."""
    return "--ablation" if mode == ABLATION else f"--mode={mode}"


def _check_taken(mode: str) -> None:
    """Raises FlaxdigitsError if a flag of the command line is not for this mode."""
    for name, flag in FLAGS.items():
        if mode in flag.modes or not flags.FLAGS[name].present:
            continue
        command = _command_flag(mode)
        reason = (f"not for {command}" if flag.is_shared() else
                  f"only for {flag.takers()}, got {command}")
        raise FlaxdigitsError(f"--{name} is {reason}{ADVICE.get(name, '')}")
