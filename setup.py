"""Adds the experiments to wheels, as `flaxdigits/built_in/`; pyproject.toml cannot express it."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

EXPERIMENTS = sorted(map(str, Path("experiments").rglob("*.py")))


class BuildWithExperiments(build_py):
    """Copies the experiments into the package, except for an editable install.

    They are also declared as source files, so that a source distribution contains them.
    """

    def run(self) -> None:
        """Builds the package."""
        super().run()
        for path in () if self.editable_mode else EXPERIMENTS:
            copy = Path(self.build_lib, "flaxdigits", "built_in", *Path(path).parts[1:])
            self.mkpath(str(copy.parent))
            self.copy_file(path, str(copy))

    def get_source_files(self) -> list[str]:
        """Returns the modules and the experiments."""
        return [*super().get_source_files(), *EXPERIMENTS]


setup(cmdclass={"build_py": BuildWithExperiments})
