"""Counts the classes and writers of the splits of a data set."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from rich.table import Table
from rich.text import Text

from flaxdigits.plurals import counted


def class_table(
    class_names: Sequence[str], labels: np.ndarray, splits: Mapping[str, np.ndarray]
) -> Table:
    """Returns a table of the number and share of the images of each class in every split.

    Args:
      class_names: the names of the classes in the order of the labels.
      labels: [examples] int, the labels of the complete data set.
      splits: the indices of the examples of each split.
    """
    table = Table(show_footer=True)
    table.add_column("class", footer="all")
    counts = {name: np.bincount(labels[rows], minlength=len(class_names))
              for name, rows in splits.items()}
    for name, split_counts in counts.items():
        table.add_column(Text(name), justify="right", footer=f"{split_counts.sum():,}  100.0%")
    for label, class_name in enumerate(class_names):
        table.add_row(Text(class_name), *(
            f"{split_counts[label]:,}  {split_counts[label] / split_counts.sum():6.1%}"
            for split_counts in counts.values()))
    return table


def writer_lines(writers: np.ndarray, splits: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Yields lines about the writers of each split, and about writers that are in two splits.

    Args:
      writers: [examples] int, the writers of the complete data set.
      splits: the indices of the examples of each split.
    """
    for name, rows in splits.items():
        unique, images = np.unique(writers[rows], return_counts=True)
        count = (f"{counted(int(images.min()), 'image')} each" if images.min() == images.max() else
                 f"{images.min()} to {images.max()} images (median {np.median(images):g})")
        yield f"{name}: {counted(len(unique), 'writer')} with {count}"
    for first, second in itertools.combinations(splits, 2):
        both = np.intersect1d(writers[splits[first]], writers[splits[second]])
        yield f"writers in both {first} and {second}: {len(both) or 'none'}"
