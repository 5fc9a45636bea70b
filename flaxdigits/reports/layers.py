"""The layers of a network, as the published documents list them, and what they cost."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from rich.table import Table
from rich.text import Text

COSTS = ("FLOPs: one image's forward pass, a multiply-add as 2, of convolutions and matrix "
         "products alone. Activations: float32 bytes of each output, one image.")


@dataclasses.dataclass(frozen=True)
class Layer:
    """One call of a layer.

    Attributes:
      path: the names of the modules that lead to it.
      kind: its class.
      output_shape: without the batch.
      parameters: how many numbers are trained.
      flops: of one image's forward pass; see `count_flops`.
    """

    path: tuple[str, ...]
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    flops: int

    @property
    def name(self) -> str:
        """The path, such as `ResidualBlock_0/Conv_1`; of the network itself its kind."""
        return "/".join(self.path) or self.kind

    @property
    def activation_bytes(self) -> int:
        """Of one image's output in float32."""
        return 4 * math.prod(self.output_shape)


@dataclasses.dataclass(frozen=True)
class _Call:
    """A call of a module while a network is traced."""

    module: nn.Module
    path: tuple[str, ...]
    inputs: Any  # arguments and options, arrays as their shapes
    output: jax.ShapeDtypeStruct
    inner: list["_Call"]  # made meanwhile


def list_layers(model: nn.Module, image_shape: tuple[int, ...]) -> list[Layer]:
    """The network's innermost layers, and what else has parameters, in the order of their calls.

    Nothing is computed. Parameters count where they are first used.

    Args:
      model: a linen module from images to logits.
      image_shape: (height, width, channels).
    """
    calls: list[_Call] = []
    is_tracing = True

    def note(call: Any, arguments: Any, options: Any, context: nn.module.InterceptorContext) -> Any:
        before = len(calls)
        output = call(*arguments, **options)
        if is_tracing and context.method_name == "__call__":
            module = context.module
            calls.append(_Call(module.clone(parent=None), module.path,
                               jax.tree.map(_shape, (arguments, options)), _shape(output),
                               calls[before:]))
        return output

    with nn.intercept_methods(note):
        variables = jax.eval_shape(
            model.init, jax.random.key(0), jnp.zeros((1, *image_shape)), None)
    is_tracing = False  # `python -O` skips the assert in which Flax removes the interceptor
    parameters = _parameters(variables.get("params", {}), {call.path for call in calls})
    owners = {path for path, count in parameters.items() if count}
    layers: list[Layer] = []
    flops: dict[int, int] = {}  # of each listed call itself
    for call in calls:
        if call.path not in owners and call.inner:
            continue
        flops[id(call)] = _flops(call) - sum(flops.get(id(one), 0) for one in call.inner)
        layers.append(Layer(
            call.path, type(call.module).__name__, tuple(call.output.shape[1:]),
            parameters.pop(call.path, 0), flops[id(call)]))
    return layers


def count_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """The floating-point operations of a function's convolutions and matrix products.

    A multiply-add counts as 2; everything else (biases, activations, pooling, an optimizer's
    update) is left out, as is usual in the literature. Nothing is computed. Of the forms for
    different devices (`lax.platform_dependent`), which do the same, the default counts, and not
    what a CPU saves; padding counts; of the branches of a `lax.cond` the dearest; a `while_loop`,
    whose length is not known, as one turn.

    Args:
      function: of arrays, such as `jax.grad(loss)` for the forward and backward pass of a batch.
      *arguments: its arguments: trees of arrays or of `jax.ShapeDtypeStruct`.
    """
    return _jaxpr_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def layer_table(title: str, layers: list[Layer]) -> Table:
    """The layers with their output shapes, parameters and costs, and the totals."""
    table = Table(title=Text(title, "table.title"), show_footer=True, caption=COSTS,
                  caption_justify="left")
    table.add_column("Layer (type)", footer="Total")
    table.add_column("Output shape")
    for name, counts in (("Parameters", [layer.parameters for layer in layers]),
                         ("FLOPs", [layer.flops for layer in layers])):
        table.add_column(name, justify="right", footer=f"{sum(counts):,}")
    total = sum(layer.activation_bytes for layer in layers)
    table.add_column("Activations", justify="right", footer=readable_bytes(total))
    for layer in layers:
        shape = ", ".join(["None", *map(str, layer.output_shape)])
        table.add_row(Text(f"{layer.name} ({layer.kind})"), f"({shape})", f"{layer.parameters:,}",
                      f"{layer.flops:,}", readable_bytes(layer.activation_bytes))
    return table


def readable_bytes(count: int) -> str:
    """Like `512.0 KiB`."""
    for power, unit in ((2, "MiB"), (1, "KiB")):
        if count >= 1024**power:
            return f"{count / 1024**power:.1f} {unit}"
    return f"{count} B"


def _shape(leaf: Any) -> Any:
    """An array's shape and dtype; anything else as it is."""
    is_array = isinstance(leaf, jax.Array)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if is_array else leaf


def _flops(call: _Call) -> int:
    leaves, tree = jax.tree.flatten(call.inputs)
    places = [place for place, leaf in enumerate(leaves)
              if isinstance(leaf, jax.ShapeDtypeStruct)]

    def run(method: Callable[..., Any], first: Any, arrays: list[jax.Array]) -> Any:
        filled = dict(enumerate(leaves)) | dict(zip(places, arrays, strict=True))
        arguments, options = jax.tree.unflatten(tree, filled.values())
        return method(first, *arguments, **options)

    arrays = [leaves[place] for place in places]
    variables = jax.eval_shape(
        lambda arrays: run(call.module.init, jax.random.key(0), arrays), arrays)
    return count_flops(
        lambda variables, arrays: run(call.module.apply, variables, arrays), variables, arrays)


def _jaxpr_flops(jaxpr: Jaxpr) -> int:
    return sum(map(_equation_flops, jaxpr.eqns))


def _equation_flops(equation: JaxprEqn) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        summed = math.prod(shape[axis] for axis in contracted)
        return 2 * math.prod(equation.outvars[0].aval.shape) * summed
    if name == "conv_general_dilated":
        kernel, spec = equation.invars[1].aval.shape, params["dimension_numbers"].rhs_spec
        summed = math.prod(kernel[axis] for axis in spec[1:])  # input features and window
        products = 2 * math.prod(equation.outvars[0].aval.shape) * summed
        return products // math.prod(params["lhs_dilation"])  # not those with its zeros
    if name == "cond":
        branches = [_jaxpr_flops(branch.jaxpr) for branch in params["branches"]]
        platforms = params.get("branches_platforms")
        return branches[platforms.index(None)] if platforms else max(branches)
    turns = params["length"] if name == "scan" else 1
    return turns * sum(map(_jaxpr_flops, _inner(params)))


def _inner(params: dict[str, Any]) -> Iterator[Jaxpr]:
    """The programs among an equation's parameters."""
    for value in params.values():
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value


def _parameters(params: Any, modules: set[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    """How many each of the called modules has itself, by its path."""
    counts = dict.fromkeys(modules, 0)
    for path, leaf in traverse_util.flatten_dict(params).items():
        owner = max((module for module in modules if path[:len(module)] == module), key=len)
        counts[owner] += sum(math.prod(array.shape) for array in jax.tree.leaves(leaf))
    return counts
