"""Writes TensorBoard event files without TensorFlow: needs the extra `tensorboard` (tensorboardX).
"""

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
from flaxdigits.datasets import SPLITS
from flaxdigits.training.trackers import Tracker


def is_installed() -> bool:
    """Returns whether tensorboardX is installed."""
    return importlib.util.find_spec("tensorboardX") is not None


class TensorBoard(Tracker):
    """Writes curves, config, result and figures to event files in `<workdir>/tensorboard`."""

    def start(
        self, config: ExperimentConfig, workdir: Path, step: int, total_steps: int
    ) -> None:
        """Opens an event file; points after `step` of an interrupted run are no longer shown."""
        # tensorboardX imports torch only to check types; the import takes 200 MB and over a second.
        with _import_blocked("torch"):
            from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=step + 1, filename_suffix=f".{step:010d}")
        self._add_json("config", to_dict(config), step)

    def row(self, row: dict[str, Any]) -> None:
        """Adds a point to the curve of each metric, such as `loss/train`."""
        for name, value in row.items():
            if name not in ("step", "epoch"):
                self._writer.add_scalar(_tag(name), value, row["step"])

    def finish(self, result: dict[str, Any], figures: dict[str, Path]) -> None:
        """Adds the test metrics, the result and the figures."""
        step = result["checkpoint_step"]
        for name in ("test_loss", "test_accuracy"):
            if result[name] is not None:
                self._writer.add_scalar(_tag(name), result[name], step)
        self._add_json("result", result, step)
        for name, path in figures.items():
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            self._writer.add_image(f"figures/{name}", pixels, step, dataformats="HWC")

    def stop(self) -> None:
        """Closes the event file."""
        self._writer.close()

    def _add_json(self, name: str, values: dict[str, Any], step: int) -> None:
        """Adds an object as a block of indented JSON."""
        lines = json.dumps(values, indent=2, ensure_ascii=False).splitlines()
        # Indented by four spaces, Markdown shows it as a code block.
        self._writer.add_text(name, "".join(f"    {line}\n" for line in lines), step)


@contextlib.contextmanager
def _import_blocked(module: str) -> Iterator[None]:
    """Makes imports of a module fail within the block, unless it is already imported."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # pyright: ignore[reportArgumentType]  # blocks the import
    try:
        yield
    finally:
        del sys.modules[module]


def _tag(name: str) -> str:
    """Returns the tag of a metric, such as `loss/train` for `train_loss`.

    TensorBoard groups the curves of all splits by the first part of the tag.
    """
    split, _, what = name.partition("_")
    return f"{what}/{split}" if split in SPLITS or what == "norm" else name
