"""Studies: many seeds, variants of an experiment against each other, folds, replication."""
