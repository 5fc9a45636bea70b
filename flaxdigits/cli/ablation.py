"""`--ablation=NAME`: runs or resumes a study, and writes its table."""

import jax

from flaxdigits.api.ablation import run_ablation
from flaxdigits.cli.context import command_of, data_arguments, seeds_of
from flaxdigits.cli.options import Options


def run(options: Options, config: None) -> int:
    """Returns the exit status: 0, or 128 + the number of the signal that paused the study."""
    if options.executor == "ray":
        jax.config.update("jax_platforms", "cpu")  # leaves other devices to the runs
    assert options.ablation is not None  # the flag that selects this command
    outcome = run_ablation(
        options.ablation, *options.overrides, seeds=seeds_of(options),
        workdir=options.optional_workdir(), dry_run=options.dry_run, executor=options.executor,
        cpus_per_run=options.cpus_per_run, gpus_per_run=options.gpus_per_run,
        **data_arguments(options), command=command_of(options))
    return 128 + outcome.signal if outcome.signal else 0
