"""What pyproject.toml cannot say: a wheel holds the experiments, as `flaxdigits/shipped/`."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

EXPERIMENTS = sorted(map(str, Path("experiments").rglob("*.py")))


class BuildWithExperiments(build_py):
    """Copies them beside the modules, but for an editable install, which finds them where they are.

    They are source files too, so that a source distribution has them.
    """

    def run(self) -> None:
        """Builds."""
        super().run()
        for path in () if self.editable_mode else EXPERIMENTS:
            copy = Path(self.build_lib, "flaxdigits", "shipped", *Path(path).parts[1:])
            self.mkpath(str(copy.parent))
            self.copy_file(path, str(copy))

    def get_source_files(self) -> list[str]:
        """The modules and the experiments."""
        return [*super().get_source_files(), *EXPERIMENTS]


setup(cmdclass={"build_py": BuildWithExperiments})
