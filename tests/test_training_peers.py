"""The processes of a run watch each other: real processes, without JAX."""

import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import ROOT

PROCESS = """
import os, sys, time
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.training.peers import ProcessInfo, exit_now, join, listen, wait_for_others

process, processes, port, seconds = map(int, sys.argv[1:5])
here = ProcessInfo.here(process, processes)
try:
    if process == 0:
        peers = wait_for_others(listen(port), here, "token", seconds)
    else:
        peers = join([("localhost", port)], here, sys.argv[6], seconds)
except FlaxdigitsError as error:
    sys.exit(f"error: {error}")
peers.watch(2)
print("met", flush=True)
if sys.argv[5] == "wait":
    time.sleep(200)
if sys.argv[5] == "fail":
    peers.fail("no data", 2)
    print("error: no data", file=sys.stderr)
if not peers.end():
    exit_now("", peers.exit_status)
peers.close()
sys.exit(peers.exit_status if sys.argv[5] == "fail" else 0)
"""


@pytest.fixture
def start():
    """Starts a process that waits for a long time, fails or ends after all have met."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = []

    def start_one(process, what, processes=2, seconds=20, token="token", port=port):
        started.append(subprocess.Popen(
            [sys.executable, "-c", PROCESS, *map(str, (process, processes, port, seconds)), what,
             token], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    start_one.port = port
    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def wait_until_met(*processes):
    for process in processes:
        assert process.stdout.readline() == "met\n"


def end(process):
    """The exit status and the lines on standard error."""
    errors = process.communicate(timeout=100)[1]
    return process.returncode, errors.splitlines()


def test_processes_that_end_together_say_nothing(start):
    processes = [start(process, "end", 3) for process in range(3)]
    assert [end(process) for process in processes] == [(0, [])] * 3


@pytest.mark.parametrize("lost", [0, 2])
def test_all_others_name_a_killed_process(lost, start):
    processes = [start(process, "wait", 4) for process in range(4)]
    wait_until_met(*processes)
    processes[lost].kill()
    for process in processes[:lost] + processes[lost + 1:]:
        status, (line,) = end(process)
        assert status == 1
        assert line.startswith(f"error: process {lost} of 4 (pid {processes[lost].pid} on ")
        assert "ended without notice" in line and "the same command" in line


def test_a_process_killed_after_the_others_came_to_their_end_is_named(start):
    others = start(0, "end", 3), start(1, "end", 3)
    lost = start(2, "wait", 3)
    wait_until_met(*others, lost)
    lost.kill()
    for process in others:
        status, (line,) = end(process)
        assert status == 1 and line.startswith("error: process 2 of 3 ")


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_all_others_name_a_stopped_process(lost, start):
    processes = [start(process, "wait", 3) for process in range(3)]
    wait_until_met(*processes)
    processes[lost].send_signal(signal.SIGSTOP)
    for process in processes[:lost] + processes[lost + 1:]:
        status, (line,) = end(process)
        assert status == 1 and f"process {lost} of 3 " in line and "silent for 20 s" in line
    processes[lost].send_signal(signal.SIGCONT)
    status, (line,) = end(processes[lost])
    assert status == 1


@pytest.mark.slow
def test_a_run_that_was_stopped_as_a_whole_goes_on(start):
    processes = [start(process, "wait") for process in range(2)]
    wait_until_met(*processes)
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    time.sleep(25)
    for process in processes:
        process.send_signal(signal.SIGCONT)
    time.sleep(5)
    assert [process.poll() for process in processes] == [None, None]


@pytest.mark.slow
def test_all_others_end_with_a_process_that_fails(start):
    processes = [start(0, "wait", 3), start(1, "fail", 3), start(2, "end", 3)]
    wait_until_met(*processes)
    assert end(processes[1]) == (2, ["error: no data"])
    for process in (processes[0], processes[2]):
        status, (line,) = end(process)
        assert status == 1
        assert line.startswith("error: process 1 of 3 ")
        assert "ended with an error: no data" in line


def test_processes_that_all_fail_show_their_own_errors(start):
    processes = [start(process, "fail") for process in range(2)]
    assert [end(process) for process in processes] == [(2, ["error: no data"])] * 2


def test_processes_that_do_not_connect_are_named(start):
    processes = start(0, "wait", 4, seconds=2), start(2, "wait", 4, seconds=10)
    for process in processes:
        status, (line,) = end(process)
        assert status == 1 and "processes 1 and 3 of 4 did not connect within 2 s" in line


def test_a_process_0_that_does_not_come_is_named(start):
    status, (line,) = end(start(1, "wait", seconds=1))
    assert status == 1 and f"process 0 of 2 did not answer at localhost:{start.port}" in line


@pytest.mark.parametrize(("process", "processes", "words"), [
    (1, 3, "started with num_processes=3, process 0 with 2"),
    (2, 2, "several processes were started with process_id=2")])
def test_processes_of_another_run_are_refused(process, processes, words, start):
    started = start(0, "wait"), start(process, "wait", processes)
    for one in started:
        status, (line,) = end(one)
        assert status == 1 and words in line


def test_other_programs_that_connect_are_ignored(start):
    first = start(0, "end")
    deadline = time.monotonic() + 20
    for content in (b"GET / HTTP/1.1\r\n\r\n", b'{"process": 1}\n', b"[" * 9000 + b"\n", b"3\n",
                    b""):
        while True:
            try:
                with socket.create_connection(("localhost", start.port), timeout=5) as stray:
                    stray.sendall(content)
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    wrong = start(1, "end", token="another", seconds=2)
    assert end(wrong)[0] == 1
    assert end(start(1, "end")) == (0, [])
    assert end(first) == (0, [])


def test_a_port_that_is_taken_is_named(start):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        status, (line,) = end(start(0, "wait", port=port))
    assert status == 1 and f"cannot listen on port {port}" in line
