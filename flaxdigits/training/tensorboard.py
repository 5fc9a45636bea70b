"""TensorBoard event files, without TensorFlow: the extra `tensorboard`, which is tensorboardX."""

import contextlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flaxdigits.config import ExperimentConfig, to_dict
from flaxdigits.datasets import PARTS
from flaxdigits.training.trackers import Tracker


def is_installed() -> bool:
    """Whether event files can be written."""
    return importlib.util.find_spec("tensorboardX") is not None


class TensorBoard(Tracker):
    """Writes `<workdir>/tensorboard`: curves, the config and the result as text, the figures."""

    def start(
        self, config: ExperimentConfig, workdir: Path, step: int, total_steps: int
    ) -> None:
        """Opens a file; whatever a run that was killed wrote after `step` counts no more."""
        with _not_found("torch"):  # imported for a name alone: 200 MB and more than a second
            from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=step + 1, filename_suffix=f".{step:010d}")
        self._text("config", to_dict(config), step)

    def row(self, row: dict[str, Any]) -> None:
        """Adds `loss/train`, `loss/validation` and the like."""
        for name, value in row.items():
            if name not in ("step", "epoch"):
                self._writer.add_scalar(_tag(name), value, row["step"])

    def finish(self, result: dict[str, Any], figures: dict[str, Path]) -> None:
        """Adds the test split's figures, the result and the PNG files."""
        step = result["checkpoint_step"]
        for name in ("test_loss", "test_accuracy"):
            if result[name] is not None:
                self._writer.add_scalar(_tag(name), result[name], step)
        self._text("result", result, step)
        for name, path in figures.items():
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            self._writer.add_image(f"figures/{name}", pixels, step, dataformats="HWC")

    def stop(self) -> None:
        """Closes the file."""
        self._writer.close()

    def _text(self, name: str, values: dict[str, Any], step: int) -> None:
        lines = json.dumps(values, indent=2, ensure_ascii=False).splitlines()
        # Indented by four, Markdown leaves it as it is.
        self._writer.add_text(name, "".join(f"    {line}\n" for line in lines), step)


@contextlib.contextmanager
def _not_found(module: str) -> Iterator[None]:
    """Makes imports of this module fail within the block, unless it is loaded."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # pyright: ignore[reportArgumentType]  # blocks the import
    try:
        yield
    finally:
        del sys.modules[module]


def _tag(name: str) -> str:
    """`train_loss` as `loss/train`, which puts the splits' curves side by side."""
    split, _, what = name.partition("_")
    return f"{what}/{split}" if split in PARTS else name
