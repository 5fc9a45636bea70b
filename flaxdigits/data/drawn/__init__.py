"""Synthetic data: generated digits and Chinese numerals, for use without the real data."""

from flaxdigits.data.drawn.chinese_mnist import draw_chinese_mnist
from flaxdigits.data.drawn.images import DrawnImages
from flaxdigits.data.drawn.mnist import draw_mnist

__all__ = ["DrawnImages", "draw_chinese_mnist", "draw_mnist"]
