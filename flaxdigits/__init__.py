"""flaxdigits: handwritten digits and Chinese numerals in JAX and Flax."""
