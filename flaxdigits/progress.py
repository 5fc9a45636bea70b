"""The interface by which long operations report their progress."""

import contextlib
from collections.abc import Callable, Iterator


class Progress:
    """Is notified of the stages of a long operation, such as compiling or evaluating.

    This base class shows nothing. A caller that shows progress passes an instance of a subclass,
    such as `flaxdigits.training.progress.ConsoleProgress`, to the functions that it calls.
    """

    @contextlib.contextmanager
    def stage(self, text: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Reports a stage that lasts until the block ends; stages may be nested.

        Args:
          text: what is done, such as `evaluating train`.
          total: the number of items, if it is known.

        Yields:
          A function that takes the number of items that are done.
        """
        yield lambda done: None


NO_PROGRESS = Progress()
