"""The command line: `python launch.py --experiment=chinese_cnn`; `--help` lists all flags."""

from flaxdigits.cli.main import main, run

__all__ = ["main"]

if __name__ == "__main__":
    run()
