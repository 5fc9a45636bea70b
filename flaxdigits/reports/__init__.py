"""Reports: results, layers and comparisons as text and tables."""
