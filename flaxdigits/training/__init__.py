"""Training: the state, the step, the loop, devices, processes, checkpoints, run folders."""
