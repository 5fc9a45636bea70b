"""Ctrl-C and SIGTERM as a wish that the loop reads between steps."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """While it is entered, notes the signals instead of dying of them; a second one is obeyed.

    Within another, such as that of several trainings, both note the same.

    Attributes:
      received: the first signal that came, or None.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._outer: Interrupts | None = None

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
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

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
        elif self._outer is not None:
            self._outer._note(number, frame)
        self.received = number
