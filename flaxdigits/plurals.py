"""Nouns in the singular or plural, with numbers."""

from collections.abc import Collection


def counted(number: float, noun: str) -> str:
    """Formats a number and a noun that takes an s, such as `1 epoch`, `2.5 epochs`, `1,200 steps`.

    Args:
      number: an integer is formatted in full; of other numbers, two decimals or, below 1, three
        significant digits.
      noun: the noun in the singular.
    """
    if isinstance(number, int):
        digits = f"{number:,}"
    else:
        digits = f"{number:.3g}" if number < 1 else f"{round(number, 2):,g}"
    return f"{digits} {noun}{'' if digits == '1' else 's'}"


def listed(noun: str, items: Collection[object]) -> str:
    """Formats a noun that takes an s with its items, such as `seed 3` or `seeds 0, 1, 4`."""
    return f"{noun}{'' if len(items) == 1 else 's'} {', '.join(map(str, items))}"
