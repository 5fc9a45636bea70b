"""The cost of a train step of each recipe equals the committed numbers; nothing is timed.

After an intended change, `python tests/test_training_cost.py` writes them again.
"""

import json
import re
from pathlib import Path
from typing import Any

import jax
import jaxlib
import pytest
from traced_recipe import traced_steps

from flaxdigits.experiments import list_experiments, load_experiment
from flaxdigits.models import build_model
from flaxdigits.models.onednn import CUSTOM_CALL_PREFIX, compile_with_onednn
from flaxdigits.reports.layers import Layer, list_layers
from flaxdigits.training.experiment import Experiment

pytest_plugins = ["tiny_run"]
COSTS_FILE = Path(__file__).parent / "costs.json"


def layers_of(name: str) -> list[Layer]:
    config = load_experiment(name)
    is_chinese = config.data.dataset == "chinese_mnist"
    image, classes = ((64, 64, 1), 15) if is_chinese else ((28, 28, 1), 10)
    return list_layers(build_model(config.model, classes), image)


def lowered_steps(name: str) -> jax.stages.Lowered:
    return traced_steps(name, "jit").lower(lowering_platforms=("cpu",))


def in_program(text: str) -> dict[str, int]:
    return {"products": text.count("stablehlo.dot_general"),
            "transposes": text.count("stablehlo.transpose")}


def in_compiled(text: str) -> dict[str, int]:
    return {"copies": len(re.findall(r" (?:copy|transpose)\(", text))}


def costs(name: str) -> dict[str, int]:
    """FLOPs per image, and matrix products and transposes of the lowered train step.

    The train step is lowered without oneDNN.
    """
    return in_program(lowered_steps(name).as_text()) | {
        "flops": sum(layer.flops for layer in layers_of(name))}


def costs_on_this_jaxlib(name: str) -> dict[str, Any]:
    """Copies in the compiled train step, and in the one that calls oneDNN if this jaxlib has it."""
    texts = []

    def lower() -> jax.stages.Lowered:
        lowered = lowered_steps(name)
        texts.append(lowered.as_text())
        return lowered

    plain = in_compiled(lowered_steps(name).compile().as_text())
    compiled = compile_with_onednn(lower)
    calls = texts[0].count(CUSTOM_CALL_PREFIX)
    return plain | {"onednn": {"calls": calls} | in_program(texts[0]) | in_compiled(
        compiled.as_text()) if calls else None}


def committed() -> dict:
    return json.loads(COSTS_FILE.read_text())


def test_every_experiment_is_here():
    assert set(committed()["experiments"]) == set(list_experiments())


@pytest.mark.parametrize("name", list_experiments())
def test_a_step_costs_what_it_did(name):
    expected = committed()["experiments"][name]
    for figure, value in costs(name).items():
        assert value == expected[figure], figure


@pytest.mark.slow
@pytest.mark.parametrize("name", list_experiments())
def test_a_compiled_step_costs_what_it_did(name):
    if committed()["jaxlib"] != jaxlib.__version__:
        pytest.skip("another version of the compiler copies elsewhere")
    expected = committed()["experiments"][name]
    for figure, value in costs_on_this_jaxlib(name).items():
        assert value == expected[figure], figure


def test_images_are_in_memory_once(tiny_config, tiny_data):
    experiment = Experiment.create(tiny_config, tiny_data)
    assert experiment.device_dataset.images.unsafe_buffer_pointer() == tiny_data.images.ctypes.data
    with pytest.raises(ValueError, match="read-only"):
        tiny_data.images[0] = 0


if __name__ == "__main__":
    COSTS_FILE.write_text(json.dumps(
        {"jaxlib": jaxlib.__version__,
         "experiments": {name: costs(name) | costs_on_this_jaxlib(name)
                         for name in list_experiments()}}, indent=2) + "\n")
