"""Data: raw files, fetching, tensorflow-datasets builders, splits and custom data sets.

Importing this package registers the builders `flaxdigits_mnist` and `flaxdigits_chinese_mnist`.
"""

from flaxdigits.data import builders as builders
