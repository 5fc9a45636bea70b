"""Data: raw files, fetching, tensorflow-datasets builders, splits and data of one's own.

Importing this package registers the builders `flaxdigits_mnist` and `flaxdigits_chinese_mnist`.
"""

from flaxdigits.data import builders as builders
