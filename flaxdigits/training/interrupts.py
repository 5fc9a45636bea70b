"""Records Ctrl-C and SIGTERM, so that the training loop can stop between two steps."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import numpy as np

from flaxdigits.training.parallel import all_reduce


class Interrupts:
    """A context manager that records SIGINT and SIGTERM; a second signal ends the process.

    A signal that is received in a nested context is recorded in the outer one, too.

    Attributes:
      received: the number of the first signal, or None.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._outer: Interrupts | None = None

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._record) for number in self.SIGNALS}
            # If there is an outer context, the previous handler is its method `_record`.
            outer = getattr(self._before[signal.SIGINT], "__self__", None)
            if isinstance(outer, Interrupts):
                self._outer, self.received = outer, outer.received
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _record(self, number: int, frame: FrameType | None) -> None:
        """Records a signal, also in the outer context; a second signal ends the process."""
        if self.received is not None:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
        elif self._outer is not None:
            self._outer._record(number, frame)
        self.received = number


def received_signal(interrupts: Interrupts) -> int:
    """Returns the signal that any of the processes has received, or 0."""
    return all_reduce(interrupts.received or 0, np.max)
