"""The command line of this process, as it is recorded in reports and run folders."""

import shlex
import sys
from pathlib import Path


def command_line() -> str:
    """Returns the command of this process, quoted for a shell, such as `python my_study.py 3`.

    In an interactive interpreter and in a notebook it is `python`.
    """
    words = program(sys.argv[0])
    return shlex.join(words if words == ["python"] else [*words, *sys.argv[1:]])


def program(path: str) -> list[str]:
    """Returns the words that start a program.

    Args:
      path: `sys.argv[0]`: of a script, of a command in a folder of programs, or of the
        `__main__.py` of a package; empty in an interactive interpreter.
    """
    file = Path(path)
    if path in ("", "-c") or file.stem.endswith("kernel_launcher"):  # the latter of notebooks
        return ["python"]
    if file.name == "__main__.py":
        return ["python", "-m", file.parent.name]
    if file.suffix == ".py":
        return ["python", file.name if file.is_absolute() else path]
    return [file.name.removesuffix(".exe")]
