"""Messages of native libraries come later than what Python writes, and are not lost."""

import signal
import subprocess
import sys

import pytest
from conftest import ROOT

START = """
import logging, os, sys
logging.basicConfig()
from flaxdigits.training.native_output import delay_native_output
from flaxdigits.training.peers import exit_now
stderr = delay_native_output()
os.write(2, b"native")
"""


def run(script):
    return subprocess.run([sys.executable, "-c", START + script], cwd=ROOT, capture_output=True,
                          text=True, check=False, timeout=60)


def test_native_messages_are_shown_at_the_end_without_delaying_others():
    done = run("print('python ', file=sys.stderr)\nlogging.error('logged')")
    assert (done.returncode, done.stderr) == (0, "python \nERROR:root:logged\nnative")


def test_a_process_that_leaves_shows_one_line_alone():
    done = run("print('kept')\nexit_now('lost', 1, stderr)")
    assert (done.returncode, done.stdout, done.stderr) == (1, "kept\n", "error: lost\n")


def test_an_abort_leaves_time_for_that_line():
    done = run("""
import ctypes, threading, time
threading.Thread(target=ctypes.CDLL(None).abort, daemon=True).start()
time.sleep(0.5)
exit_now('lost', 1, stderr)
""")
    assert (done.returncode, done.stderr) == (1, "error: lost\n")


@pytest.mark.slow
def test_another_abort_shows_the_messages():
    done = run("import ctypes; ctypes.CDLL(None).abort()")
    assert (done.returncode, done.stderr) == (-signal.SIGABRT, "native")
