"""--mode=export: a run's network as files that are used without flaxdigits."""

from rich.console import Console

from flaxdigits.cli.options import Options
from flaxdigits.config import ExperimentConfig
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.export import has_onnx, onnx_file, program_file, weights_file
from flaxdigits.evaluation.trained import load_network
from flaxdigits.training.run_folder import RunFolder


def run(options: Options, config: ExperimentConfig) -> int:
    """Writes them to the run's folder `export` and says what they are; returns the exit status."""
    if options.overrides:
        raise FlaxdigitsError("--mode=export is about a run as it was trained: leave out --set")
    folder = RunFolder(options.workdir())
    folder.check_writable()
    network = load_network(folder, config, options.checkpoint)
    files = {"program.npz": ("jax.export, for CPU, CUDA and TPU", program_file),
             "weights.safetensors": ("the weights by layer", weights_file)}
    if has_onnx():
        files["model.onnx"] = ("ONNX", onnx_file)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(f"{network.config.experiment}, step {network.step}: uint8 images of "
                  f"{network.framing.height}x{network.framing.width}x1, any number, to logits of "
                  f"{len(network.class_names)} classes")
    for name, (what, make) in files.items():
        content = make(network)
        folder.write(f"export/{name}", content)
        console.print(f"{options.workdir() / 'export' / name}: {what}, {len(content) / 1e6:.1f} MB")
    if not has_onnx():
        console.print("no ONNX file: pip install -e '.[onnx]' lets it be written")
    return 0
