"""What a data set's splits hold: how many of each class, and by whose hands."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from rich.table import Table
from rich.text import Text


def class_table(
    class_names: Sequence[str], labels: np.ndarray, splits: Mapping[str, np.ndarray]
) -> Table:
    """How many images of each class every split has, and their share of it.

    Args:
      class_names: in the order of the labels.
      labels: [all] int, of the whole data set.
      splits: the rows of each.
    """
    table = Table(show_footer=True)
    table.add_column("class", footer="all")
    counts = {name: np.bincount(labels[rows], minlength=len(class_names))
              for name, rows in splits.items()}
    for name, of_split in counts.items():
        table.add_column(Text(name), justify="right", footer=f"{of_split.sum():,}  100.0%")
    for label, class_name in enumerate(class_names):
        table.add_row(Text(class_name), *(
            f"{of_split[label]:,}  {of_split[label] / of_split.sum():6.1%}"
            for of_split in counts.values()))
    return table


def writer_lines(writers: np.ndarray, splits: Mapping[str, np.ndarray]) -> Iterator[str]:
    """How many writers each split has, with how many images, and who is in two of them.

    Args:
      writers: [all] int, of the whole data set.
      splits: the rows of each.
    """
    for name, rows in splits.items():
        who, images = np.unique(writers[rows], return_counts=True)
        yield (f"{name}: {len(who)} writers with {images.min()} to {images.max()} images "
               f"(median {np.median(images):g})")
    for one, other in itertools.combinations(splits, 2):
        both = np.intersect1d(writers[splits[one]], writers[splits[other]])
        yield f"writers in both {one} and {other}: {len(both) or 'none'}"
