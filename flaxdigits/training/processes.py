"""Connects the processes of a run, lets them watch each other, and ends them together."""

import atexit
import contextlib
import functools
import importlib.util
import json
import logging
import os
import re
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.native_output import delay_native_output
from flaxdigits.training.parallel import first_line
from flaxdigits.training.peers import (
    LOST_EXIT_STATUS,
    Peers,
    ProcessInfo,
    exit_now,
    join,
    listen,
    local_addresses,
    wait_for_others,
)

CONNECT_TIMEOUT = 45  # seconds

_log = logging.getLogger(__name__)
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

# The other processes, or None before `connect`. They stay connected until this process ends.
_peers: Peers | None = None


def connect(
    coordinator: str | None, num_processes: int | None, process_id: int | None,
    timeout: float = CONNECT_TIMEOUT,
) -> None:
    """Connects to the other processes of a run, if there are any.

    It must be called before any other use of JAX. SLURM steps with several tasks and Cloud TPU VMs
    are detected; elsewhere the first three arguments are needed. Once connected, the processes
    watch each other: if one process is lost, or fails while the others do not, each of the others
    prints a line that names it and exits with status 1. For this purpose, messages of native
    libraries on standard error are delayed by a few seconds.

    Args:
      coordinator: the address of process 0 as "host:port", or None.
      num_processes: the number of processes, or None.
      process_id: the number of this process, from 0, or None.
      timeout: the seconds to wait for the other processes.

    Raises:
      FlaxdigitsError: if one of the first three arguments is invalid, if only some of them are
        passed, or if the other processes cannot be reached.
    """
    global _peers
    is_passed = [value is not None for value in (coordinator, num_processes, process_id)]
    if any(is_passed) and not all(is_passed):
        raise FlaxdigitsError(
            "coordinator, num_processes and process_id must be passed together, or none of "
            "them")
    if num_processes is not None and process_id is not None and (
            not 0 <= process_id < num_processes):
        raise FlaxdigitsError(
            f"process_id must be from 0 to {num_processes - 1}, got {process_id}")
    if _peers is not None:
        return
    is_tpu, slurm = _is_on_a_tpu_machine(), _slurm_tasks() > 1
    is_initialized = jax.distributed.is_initialized()
    if not (is_initialized or all(is_passed) or is_tpu or slurm):
        return
    if (coordinator is not None and num_processes is not None and process_id is not None
            and num_processes > 1 and not is_initialized):
        _watch(_meet(coordinator, ProcessInfo.here(process_id, num_processes), timeout))
    with _ends_after(timeout):
        if not is_initialized:
            try:
                jax.distributed.initialize(
                    coordinator, num_processes, process_id, _gpus_of_task() if slurm else None)
            except (RuntimeError, ValueError, OSError) as error:  # OSError: no TPU metadata
                if is_tpu and not (all(is_passed) or slurm):
                    _log.warning("running on a single TPU machine instead of a TPU pod: %s",
                                 first_line(error))
                    return
                raise FlaxdigitsError(
                    f"cannot join the other processes: {first_line(error)}") from error
        if _peers is None and jax.process_count() > 1:
            _watch(_meet_by_jax(timeout))


def report_failures(
    function: Callable[_Parameters, _Result],
) -> Callable[_Parameters, _Result]:
    """Returns a function that notifies the other processes if `function` raises an exception."""
    @functools.wraps(function)
    def reporting(*arguments: _Parameters.args, **options: _Parameters.kwargs) -> _Result:
        try:
            return function(*arguments, **options)
        except BaseException as error:
            if _peers is not None:
                _peers.fail(first_line(error), _exit_status(error))
            raise

    return reporting


def _exit_status(error: BaseException) -> int:
    """Returns the exit status of the command for an exception."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, FlaxdigitsError) else 1


def _watch(peers: Peers) -> None:
    """Watches the other processes, and makes this process end together with them."""
    global _peers
    _peers = peers
    peers.watch(delay_native_output())
    atexit.register(_end, peers)


def _end(peers: Peers) -> None:
    """Waits for the other processes before JAX shuts down; JAX would block on a lost process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # this process only waits for the others
    uncaught = getattr(sys, "last_value", None)
    if uncaught is not None:
        peers.fail(first_line(uncaught), _exit_status(uncaught))
    if not peers.end():
        exit_now("", peers.exit_status)
    jax.distributed.shutdown()
    peers.close()


def _meet(coordinator: str, here: ProcessInfo, timeout: float) -> Peers:
    """Connects the processes over the coordinator's port, before JAX listens on it."""
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise FlaxdigitsError(f"coordinator must be host:port, got {coordinator!r}")
    if here.process == 0:
        return wait_for_others(listen(int(port)), here, "", timeout)
    return join([(host.strip("[]"), int(port))], here, "", timeout)


def _meet_by_jax(timeout: float) -> Peers:
    """Connects processes that JAX has connected, over a port that process 0 selects."""
    here = ProcessInfo.here(jax.process_index(), jax.process_count())
    server = listen(0) if here.process == 0 else None
    offer = np.zeros(1024, np.uint8)
    if server is not None:
        content = json.dumps({"hosts": local_addresses(), "port": server.getsockname()[1],
                              "token": secrets.token_hex(16)}).encode()
        offer[:len(content)] = np.frombuffer(content, np.uint8)
    offer = multihost_utils.broadcast_one_to_all(offer)
    process_0 = json.loads(np.asarray(offer, np.uint8).tobytes().rstrip(b"\0"))
    if server is not None:
        return wait_for_others(server, here, process_0["token"], timeout)
    return join([(host, process_0["port"]) for host in process_0["hosts"]], here,
                process_0["token"], timeout)


@contextlib.contextmanager
def _ends_after(seconds: float) -> Iterator[None]:
    """Ends this process with one line if the block takes longer; JAX would wait and then abort."""
    def end() -> None:
        exit_now(f"the processes of this run were not all connected within {seconds:.0f} s: start "
              "all of them together, or wait longer with connect_timeout", LOST_EXIT_STATUS,
              2 if _peers is None else _peers.stderr)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def check_single_process() -> None:
    """Raises FlaxdigitsError in a SLURM step with several tasks, which would all do the same work.
    """
    if _slurm_tasks() > 1:
        raise FlaxdigitsError(
            f"this is one of {_slurm_tasks()} tasks of a SLURM step, but several runs must be "
            "trained by one process with all its devices: start it with srun --ntasks=1")


def _slurm_tasks() -> int:
    """Returns the number of tasks of the SLURM step; 1 outside of srun, even in an allocation."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))


def _gpus_of_task() -> list[int] | None:
    """Returns the local ids of the visible GPUs, if no other SLURM task uses them.

    Returns None otherwise; JAX then assigns one of the visible GPUs to each task of the node.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    is_only_task = re.fullmatch(r"1(\(x\d+\))?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    has_own_gpus = visible != [""] and (is_only_task or len(visible) == 1)
    return list(range(len(visible))) if has_own_gpus else None


def _is_on_a_tpu_machine() -> bool:
    """Returns whether this machine has TPUs, and may therefore be a host of a TPU pod.

    If so, JAX reads the number of this process from the metadata server.
    """
    has_chips = any(Path("/dev").glob("accel*")) or any(Path("/dev/vfio").glob("[0-9]*"))
    return has_chips and importlib.util.find_spec("libtpu") is not None
