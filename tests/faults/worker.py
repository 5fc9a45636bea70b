"""Runs command lines of `launch.py`, one after another, in a process that has JAX loaded.

Reads a line of JSON for each: `arguments`, and the two `files` that take what it prints. Answers
with its exit status, 1 for an exception that left `launch.main`, as Python would.
"""

import json
import os
import resource
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 8 << 30  # bytes: what asks for more is to fail, not to take the machine down


def main() -> None:
    """Answers until standard input ends."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    sys.path.insert(0, str(ROOT))
    answers = os.fdopen(os.dup(1), "w")
    from absl.testing import flagsaver
    from array_record.python import array_record_data_source  # noqa: F401 its flags come first

    import launch

    sys.stdout.reconfigure(errors="backslashreplace")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    for line in sys.stdin:
        request = json.loads(line)
        for number, name in enumerate(request["files"], start=1):
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
            os.close(file)
        try:
            with flagsaver.flagsaver():
                status = launch.main([str(ROOT / "launch.py"), *request["arguments"]])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        print(json.dumps(status), file=answers, flush=True)


if __name__ == "__main__":
    main()
