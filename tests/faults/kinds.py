"""All kinds of faults."""

import damage
import devices
import divergence
import folders
import fuzz
import kills
import processes
from lab import Case

KINDS = (kills, damage, folders, devices, processes, divergence, fuzz)


def all_cases(length: str) -> list[Case]:
    """Returns the cases of the `short` or the `long` form."""
    return [case for kind in KINDS for case in kind.cases(length)]
