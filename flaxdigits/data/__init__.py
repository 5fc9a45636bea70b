"""Data: raw files, downloads, tensorflow-datasets builders, custom data sets and splits.

Importing this package registers the builders `flaxdigits_mnist` and `flaxdigits_chinese_mnist`.
"""

from flaxdigits.data import builders as builders
