"""Training: the state, the step, the loop, optimizers, devices, checkpoints, run folders."""
