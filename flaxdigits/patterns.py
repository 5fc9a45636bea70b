"""What a name on the command line stands for: a path, or all that match a pattern."""

import glob
import os


def find_paths(pattern: str) -> list[str]:
    """The path of this very name, if there is one, else those that match it, sorted."""
    named = os.path.expanduser(pattern)
    return [named] if os.path.exists(named) else sorted(glob.glob(named, recursive=True))
