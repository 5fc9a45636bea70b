"""The command line that is recorded in reports and run folders."""

import shlex
import sys

import pytest

from flaxdigits.command import command_line

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(("arguments", "command"), [
    (["launch.py", "--ablation=mse_cnn"], "python launch.py --ablation=mse_cnn"),
    (["/home/a/launch.py", "--seeds=0..2"], "python launch.py --seeds=0..2"),
    (["/opt/bin/flaxdigits", "--experiment=my exp.py", "--set=model.filters=$HOME"],
     "flaxdigits '--experiment=my exp.py' '--set=model.filters=$HOME'"),
    (["/opt/lib/flaxdigits/__main__.py", "--list"], "python -m flaxdigits --list"),
    (["studies/mine.py"], "python studies/mine.py"), ([""], "python"), (["-c", "3"], "python"),
    (["/opt/lib/ipykernel_launcher.py", "-f", "/home/a/kernel.json"], "python")])
def test_the_command_of_this_process_is_quoted_for_a_shell(arguments, command, monkeypatch):
    monkeypatch.setattr(sys, "argv", arguments)
    assert command_line() == command
    assert len(shlex.split(command)) >= len(arguments) or command == "python"
