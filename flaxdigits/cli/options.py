"""The command line: absl flags, and the same as a frozen dataclass that the modes take."""

import dataclasses
from pathlib import Path

from absl import flags

from flaxdigits.api.arguments import Source
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import ABLATIONS, list_experiments
from flaxdigits.patterns import expand_user

HELP = "python launch.py --experiment=NAME [--mode=MODE] [--set field=value ...]\n"
MODES = ("train", "eval", "report", "summary", "data", "config", "prepare", "compare",
         "folds", "benchmark", "growth", "replicate", "predict", "export")
WITH_SEEDS = ("train", "folds", "replicate")
WITH_CHECKPOINT = ("eval", "predict", "export")

_EXPERIMENT = flags.DEFINE_string(
    "experiment", None, "Name of a shipped experiment (--list), or the path of a file of yours.")
_MODE = flags.DEFINE_string("mode", "train", f"One of {', '.join(MODES)}.")
_LIST = flags.DEFINE_bool("list", False, "List the shipped experiments and studies and exit.")
_WORKDIR = flags.DEFINE_multi_string(
    "workdir", [], "The run folder; default runs/<experiment>. compare takes several.")
_SET = flags.DEFINE_multi_string(
    "set", [], "Change a field of the config, as in --set train.epochs=5; repeatable.")
_ABLATION = flags.DEFINE_string(
    "ablation", None, "Run a study: the name of a shipped one (--list), or the path of a file.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "List what a study or a replication would run, and how long it would take.")
_EXECUTOR = flags.DEFINE_enum(
    "executor", "local", ["local", "ray"], "Where a study's runs are trained: here, or on Ray.")
_CPUS_PER_RUN = flags.DEFINE_integer(
    "cpus_per_run", 1, "CPU cores of each run on Ray.", lower_bound=1)
_GPUS_PER_RUN = flags.DEFINE_integer("gpus_per_run", 0, "GPUs of each run on Ray.", lower_bound=0)
_SEEDS = flags.DEFINE_string(
    "seeds", None, "Train several seeds, as in --seeds=0..9 or --seeds=0,3,7.")
_COLLECT = flags.DEFINE_multi_string(
    "collect", [], "replicate: count finished runs that lie here, in place of runs; a pattern of "
    "run folders, of records, or of folders that hold such; repeatable.")
_COLLECT_ONLY = flags.DEFINE_bool(
    "collect_only", False, "replicate: run nothing, report what there is.")
_UPDATE = flags.DEFINE_string(
    "update", None, "replicate: put the table between the markers in this Markdown file.")
_DATA = flags.DEFINE_enum(
    "data", "auto", ["auto", "real", "drawn"],
    "Real data, or characters that the framework draws; auto draws when there is nothing real.")
_RAW_DATA_DIR = flags.DEFINE_string(
    "raw_data_dir", None, "Folder of the raw files; default: $FLAXDIGITS_RAW_DATA.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data; default: $TFDS_DATA_DIR, else "
    "~/tensorflow_datasets.")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "last", "Which to evaluate, use or export: last, best, a step; eval: all.")
_IMAGES = flags.DEFINE_multi_string(
    "images", [], "Image files to predict, as in --images='scans/*.png'; repeatable.")
_FIGURE = flags.DEFINE_bool(
    "figure", False, "Draw each image beside what the network saw of it, in predict.")
_FORMAT = flags.DEFINE_enum(
    "format", "table", ["table", "json"], "How predict prints what it read.")
_PEERS = flags.DEFINE_bool(
    "peers", False, "In a benchmark, time Keras on TensorFlow and PyTorch too: the extra bench.")
_PROFILE = flags.DEFINE_bool(
    "profile", False, "Trace some training steps, for TensorBoard or Perfetto: <workdir>/profile.")
_TENSORBOARD = flags.DEFINE_bool(
    "tensorboard", True, "Write TensorBoard event files to <workdir>/tensorboard, if tensorboardX "
    "is installed.")
_LOGS = flags.DEFINE_enum(
    "logs", "own", ["own", "all"], "Our own notes, or those of every library too.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, in a run of several processes.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
_CONNECT_TIMEOUT = flags.DEFINE_integer(
    "connect_timeout", 45, "Seconds that the processes of a run wait for each other at the start.",
    lower_bound=1)


@dataclasses.dataclass(frozen=True)
class Options:
    """What a mode is told."""

    experiment: str | None = None
    mode: str = "train"
    workdirs: tuple[Path, ...] = ()
    overrides: tuple[str, ...] = ()
    ablation: str | None = None
    dry_run: bool = False
    executor: str = "local"
    cpus_per_run: int = 1
    gpus_per_run: int = 0
    seeds: str | None = None
    collect: tuple[str, ...] = ()
    collect_only: bool = False
    update: Path | None = None
    data: Source = "auto"
    raw_data_dir: Path | None = None
    data_dir: Path | None = None
    checkpoint: str = "last"
    images: tuple[str, ...] = ()
    figure: bool = False
    format: str = "table"
    peers: bool = False
    profile: bool = False
    tensorboard: bool = True
    logs: str = "own"
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    connect_timeout: int = 45

    @property
    def command(self) -> str:
        """Which file of `flaxdigits.cli` does it."""
        if self.ablation is not None:
            return "ablation"
        return "seeds" if self.mode == "train" and self.seeds is not None else self.mode

    def workdir(self) -> Path:
        """The one run folder that was named.

        Raises:
          FlaxdigitsError: if none or several were.
        """
        if len(self.workdirs) != 1:
            raise FlaxdigitsError(
                f"--mode={self.mode} needs one --workdir, got {len(self.workdirs)}")
        return self.workdirs[0]

    def optional_workdir(self) -> Path | None:
        """The one run folder that was named, or None.

        Raises:
          FlaxdigitsError: if several were.
        """
        return self.workdir() if self.workdirs else None


def parse(arguments: list[str]) -> Options | str:
    """The options of a command line; or the text that --help or --list asks for.

    Args:
      arguments: with the program's name first, as in sys.argv.

    Raises:
      FlaxdigitsError: for an unknown flag, a wrong value or a stray word.
    """
    if {"--help", "-help", "-h", "--helpfull", "--helpshort"} & set(arguments[1:]):
        return f"{HELP}\n{flags.FLAGS.get_help(include_special_flags=False)}"
    try:
        words = flags.FLAGS(arguments)
    # ValueError: a negated flag with a value; OSError: a --flagfile that cannot be read.
    except (flags.Error, ValueError, OSError) as error:
        raise FlaxdigitsError(" ".join(str(error).split())) from error
    if len(words) > 1:
        raise FlaxdigitsError(
            f"stray word {words[1]!r}: settings are given as --name=value, see --help")
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
                f"--{flag.name} is for --mode=train alone, of one run: several seeds, a study and "
                "every other mode are one process")
    for flag in (_PROFILE, _TENSORBOARD):
        if flag.present and _ABLATION.value is not None:
            raise FlaxdigitsError(f"--{flag.name} is not for --ablation, whose runs are told of "
                                  "in a line each")
    if _PROFILE.value and _MODE.value != "train":
        raise FlaxdigitsError(f"--profile is for --mode=train alone, got --mode={_MODE.value}")
    if _PEERS.value and _MODE.value != "benchmark":
        raise FlaxdigitsError(f"--peers is for --mode=benchmark alone, got --mode={_MODE.value}")
    for flag in (_IMAGES, _FIGURE, _FORMAT):
        if flag.value != flag.default and _MODE.value != "predict":
            raise FlaxdigitsError(
                f"--{flag.name} is for --mode=predict alone, got --mode={_MODE.value}")
    if _CHECKPOINT.present and _MODE.value not in WITH_CHECKPOINT:
        raise FlaxdigitsError(f"--checkpoint is for --mode={' or '.join(WITH_CHECKPOINT)}, not "
                              f"for --mode={_MODE.value}; checkpoint.report=best reports the best")
    if _SEEDS.value is not None and any(
            override.partition("=")[0].strip() == "seed" for override in _SET.value):
        raise FlaxdigitsError("--seeds names the seeds: leave out --set seed=")
    if "" in _WORKDIR.value:
        raise FlaxdigitsError("--workdir is empty: name a folder, or leave it out")
    if _SEEDS.value is not None and _MODE.value not in WITH_SEEDS:
        raise FlaxdigitsError(
            f"--seeds is for --mode={' or '.join(WITH_SEEDS)}, not for --mode={_MODE.value}")
    if _ABLATION.value is not None and (
            _EXPERIMENT.value is not None or _MODE.value != "train"):
        raise FlaxdigitsError(
            "--ablation names its own experiment and does its own runs: leave out --experiment "
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
                f"--{flag.name} is for --mode=replicate alone, got --mode={_MODE.value}")
    raw = _RAW_DATA_DIR.value
    return Options(
        experiment=_EXPERIMENT.value, mode=_MODE.value,
        workdirs=tuple(expand_user(path) for path in _WORKDIR.value),
        overrides=tuple(_SET.value), ablation=_ABLATION.value,
        dry_run=_DRY_RUN.value, executor=_EXECUTOR.value, cpus_per_run=_CPUS_PER_RUN.value,
        gpus_per_run=_GPUS_PER_RUN.value, seeds=_SEEDS.value,
        collect=tuple(_COLLECT.value), collect_only=_COLLECT_ONLY.value,
        update=expand_user(_UPDATE.value) if _UPDATE.value else None, data=_DATA.value,
        raw_data_dir=expand_user(raw) if raw else None,
        data_dir=expand_user(_DATA_DIR.value) if _DATA_DIR.value else None,
        checkpoint=_CHECKPOINT.value, images=tuple(_IMAGES.value), figure=_FIGURE.value,
        format=_FORMAT.value, peers=_PEERS.value, profile=_PROFILE.value,
        tensorboard=_TENSORBOARD.value, logs=_LOGS.value, coordinator=_COORDINATOR.value,
        num_processes=_NUM_PROCESSES.value, process_id=_PROCESS_ID.value,
        connect_timeout=_CONNECT_TIMEOUT.value)
