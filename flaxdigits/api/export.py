"""Exports the network of a run to files that can be used without flaxdigits."""

from pathlib import Path

from rich.console import Console

from flaxdigits.api.arguments import PathLike
from flaxdigits.api.experiment import open_run
from flaxdigits.api.session import Session
from flaxdigits.evaluation.export import has_onnx, onnx_file, program_file, weights_file
from flaxdigits.evaluation.trained import load_network
from flaxdigits.jax_settings import pinned_settings


@pinned_settings()
def export(
    workdir: PathLike, checkpoint: str | int = "last", *, experiment: PathLike | None = None,
    console: Console | None = None,
) -> list[Path]:
    """Exports the network to the folder `export` of the run.

    Writes a `jax.export` program, the weights, and an ONNX file if the extra `onnx` is installed.

    Args:
      workdir: the run folder.
      checkpoint: `last`, `best` (by validation accuracy) or a step.
      experiment: the experiment file of the run, if it has custom components and the file with
        which it was trained is gone or has changed.
      console: See `train`.

    Returns:
      The paths of the files.

    Raises:
      FlaxdigitsError: if there is no such run or checkpoint, the checkpoint is damaged, the network
        cannot be exported for any batch size, or the files cannot be written.
    """
    folder, config = open_run(workdir, experiment=experiment)
    folder.check_writable()
    session = Session.start([], console)
    console, progress = session.console, session.progress
    with progress.stage("loading the network"):
        network = load_network(folder, config, str(checkpoint))
    console.print(f"{network.config.experiment}, step {network.step}: uint8 images of "
                  f"{'x'.join(map(str, network.image_shape))}, any batch size, to logits of "
                  f"{len(network.class_names)} classes")
    files = {"program.npz": ("jax.export, for CPU, CUDA and TPU", program_file),
             "weights.safetensors": ("the weights by layer", weights_file)}
    if has_onnx():
        files["model.onnx"] = ("ONNX", onnx_file)
    else:
        console.print("no ONNX file: it needs pip install -e '.[onnx]'")
    for name, (description, create) in files.items():
        with progress.stage(f"creating {name}"):
            content = create(network)
        folder.write(f"export/{name}", content)
        console.print(
            f"{folder.path / 'export' / name}: {description}, {len(content) / 1e6:.1f} MB")
    return [folder.path / "export" / name for name in files]
