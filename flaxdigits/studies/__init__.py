"""Studies of many runs: seeds, variants of an experiment, cross-validation folds, replication."""
