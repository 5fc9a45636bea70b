"""The layers of a network, as the published documents list them."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from rich.table import Table


@dataclasses.dataclass(frozen=True)
class Layer:
    """One call of a layer."""

    name: str
    kind: str
    output_shape: tuple[int, ...]  # without the batch
    parameters: int


def list_layers(model: nn.Module, image_shape: tuple[int, ...]) -> list[Layer]:
    """The network's innermost layers in the order of their calls; nothing is computed.

    Args:
      model: a linen module from images to logits.
      image_shape: (height, width, channels).
    """
    calls: list[tuple[tuple[str, ...], str, Any]] = []

    def note(call: Any, arguments: Any, options: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*arguments, **options)
        if context.method_name == "__call__":
            calls.append((context.module.path, type(context.module).__name__, output))
        return output

    with nn.intercept_methods(note):
        variables = jax.eval_shape(
            model.init, jax.random.key(0), jnp.zeros((1, *image_shape)))
    paths = [path for path, _, _ in calls]
    return [
        Layer(path[-1], kind, tuple(output.shape[1:]), _parameters(variables["params"], path))
        for path, kind, output in calls
        if not any(other != path and other[:len(path)] == path for other in paths)]


def layer_table(title: str, layers: list[Layer]) -> Table:
    """The layers with their output shapes and parameters, and the total."""
    table = Table(title=title, show_footer=True)
    table.add_column("Layer (type)", footer="Total")
    table.add_column("Output shape")
    total = sum(layer.parameters for layer in layers)
    table.add_column("Parameters", justify="right", footer=f"{total:,}")
    for layer in layers:
        shape = ", ".join(["None", *map(str, layer.output_shape)])
        table.add_row(f"{layer.name} ({layer.kind})", f"({shape})", f"{layer.parameters:,}")
    return table


def _parameters(params: Any, path: tuple[str, ...]) -> int:
    for name in path:
        params = params.get(name, {})
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
