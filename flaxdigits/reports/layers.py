"""Lists the layers of a network with their output shapes, parameters, FLOPs and memory."""

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

CAPTION = (
    "FLOPs: the convolutions and matrix products of one image's forward pass; a multiply-add "
    "counts as 2. Activations: float32 bytes of each output for one image.")


@dataclasses.dataclass(frozen=True)
class Layer:
    """One call of a layer.

    Attributes:
      path: the names of the modules from the network to the layer.
      kind: the name of its class.
      output_shape: the shape of its output without the batch.
      parameters: the number of its trainable parameters.
      flops: the FLOPs of one image's forward pass; see `count_flops`.
    """

    path: tuple[str, ...]
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    flops: int

    @property
    def name(self) -> str:
        """The path, such as `ResidualBlock_0/Conv_1`; for the network itself, its class."""
        return "/".join(self.path) or self.kind

    @property
    def activation_bytes(self) -> int:
        """The size of one image's output in float32."""
        return 4 * math.prod(self.output_shape)


@dataclasses.dataclass(frozen=True)
class _Call:
    """A call of a module that was recorded while the network was traced."""

    module: nn.Module
    path: tuple[str, ...]
    inputs: Any  # (args, kwargs), with shapes in place of arrays
    output: jax.ShapeDtypeStruct
    submodule_calls: list["_Call"]


def list_layers(model: nn.Module, image_shape: tuple[int, ...]) -> list[Layer]:
    """Lists the innermost layers, and other modules with parameters, by when their calls return.

    The network is only traced, not executed. Shared parameters are counted where they are first
    used. `nn.tabulate(compute_flops=True)` is not used, since its FLOPs are those of XLA's program
    for the current device, including elementwise operations: on a CPU they depend on the
    implementation of the convolutions.

    Args:
      model: a linen module that maps images to logits.
      image_shape: (height, width, channels).
    """
    calls: list[_Call] = []
    is_tracing = True

    def record(
        next_function: Any, arguments: Any, options: Any, context: nn.module.InterceptorContext
    ) -> Any:
        before = len(calls)
        output = next_function(*arguments, **options)
        if is_tracing and context.method_name == "__call__":
            module = context.module
            calls.append(_Call(module.clone(parent=None), module.path,
                               jax.tree.map(_shape, (arguments, options)), _shape(output),
                               calls[before:]))
        return output

    with nn.intercept_methods(record):
        variables = jax.eval_shape(
            model.init, jax.random.key(0), jnp.zeros((1, *image_shape)), None)
    is_tracing = False  # `python -O` skips the assert in which Flax removes the interceptor
    parameters = _parameters(variables.get("params", {}), {call.path for call in calls})
    owners = {path for path, count in parameters.items() if count}
    layers: list[Layer] = []
    flops: dict[int, int] = {}  # by call, without the listed calls of its submodules
    for call in calls:
        if call.path not in owners and call.submodule_calls:
            continue
        flops[id(call)] = _flops(call) - sum(
            flops.get(id(submodule_call), 0) for submodule_call in call.submodule_calls)
        layers.append(Layer(
            call.path, type(call.module).__name__, tuple(call.output.shape[1:]),
            parameters.pop(call.path, 0), flops[id(call)]))
    return layers


def count_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Counts the floating-point operations of a function's convolutions and matrix products.

    The function is only traced. A multiply-add counts as 2. Other operations (biases, activations,
    pooling, the update of an optimizer) are not counted, as is usual in the literature. Padding is
    counted. Of the alternatives of `lax.platform_dependent` the default is counted, even if the
    implementation for a CPU needs fewer operations; of the branches of a `lax.cond`, the one with
    the most operations; of a `while_loop`, whose length is unknown, one iteration.

    Args:
      function: a function of arrays, such as `jax.grad(loss)` for a forward and backward pass.
      *arguments: its arguments: trees of arrays or of `jax.ShapeDtypeStruct`.
    """
    return _jaxpr_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def layer_table(title: str, layers: list[Layer]) -> Table:
    """Returns a table of layers with output shapes, parameters, FLOPs, memory and totals."""
    table = Table(title=Text(title, "table.title"), show_footer=True, caption=CAPTION,
                  caption_justify="left")
    table.add_column("Layer (type)", footer="Total")
    table.add_column("Output shape")
    for name, counts in (("Parameters", [layer.parameters for layer in layers]),
                         ("FLOPs", [layer.flops for layer in layers])):
        table.add_column(name, justify="right", footer=f"{sum(counts):,}")
    total = sum(layer.activation_bytes for layer in layers)
    table.add_column("Activations", justify="right", footer=format_bytes(total))
    for layer in layers:
        shape = ", ".join(["None", *map(str, layer.output_shape)])
        table.add_row(Text(f"{layer.name} ({layer.kind})"), f"({shape})", f"{layer.parameters:,}",
                      f"{layer.flops:,}", format_bytes(layer.activation_bytes))
    return table


def format_bytes(count: int) -> str:
    """Formats a number of bytes, such as `512.0 KiB`."""
    for power, unit in ((2, "MiB"), (1, "KiB")):
        if count >= 1024**power:
            return f"{count / 1024**power:.1f} {unit}"
    return f"{count} B"


def _shape(leaf: Any) -> Any:
    """Returns the shape and dtype of an array, and any other value unchanged."""
    is_array = isinstance(leaf, jax.Array)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if is_array else leaf


def _flops(call: _Call) -> int:
    """Returns the FLOPs of a recorded call for one image, including those of its submodules."""
    leaves, tree = jax.tree.flatten(call.inputs)
    positions = [position for position, leaf in enumerate(leaves)
                 if isinstance(leaf, jax.ShapeDtypeStruct)]

    def run(
        method: Callable[..., Any], key_or_variables: Any, arrays: list[jax.Array]
    ) -> Any:
        inputs = dict(enumerate(leaves)) | dict(zip(positions, arrays, strict=True))
        arguments, options = jax.tree.unflatten(tree, inputs.values())
        return method(key_or_variables, *arguments, **options)

    arrays = [leaves[position] for position in positions]
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
        shape = _dimensions(equation.invars[0])
        summed = math.prod(shape[axis] for axis in contracted)
        return 2 * math.prod(_dimensions(equation.outvars[0])) * summed
    if name == "conv_general_dilated":
        kernel, spec = _dimensions(equation.invars[1]), params["dimension_numbers"].rhs_spec
        summed = math.prod(kernel[axis] for axis in spec[1:])  # input features and window
        products = 2 * math.prod(_dimensions(equation.outvars[0])) * summed
        return products // math.prod(params["lhs_dilation"])  # without the zeros of the dilation
    if name == "cond":
        branches = [_jaxpr_flops(branch.jaxpr) for branch in params["branches"]]
        platforms = params.get("branches_platforms")
        return branches[platforms.index(None)] if platforms else max(branches)
    iterations = params["length"] if name == "scan" else 1
    return iterations * sum(map(_jaxpr_flops, _inner_jaxprs(params)))


def _dimensions(variable: Any) -> tuple[int, ...]:
    """Returns the shape of an array in a jaxpr; the types of JAX do not declare it."""
    return variable.aval.shape


def _inner_jaxprs(params: dict[str, Any]) -> Iterator[Jaxpr]:
    """Yields the jaxprs among the parameters of an equation."""
    for value in params.values():
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value


def _parameters(params: Any, modules: set[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    """Counts the parameters of each called module by its path, without those of its submodules."""
    counts = dict.fromkeys(modules, 0)
    for path, leaf in traverse_util.flatten_dict(params).items():
        owner = max((module for module in modules if path[:len(module)] == module), key=len)
        counts[owner] += sum(math.prod(array.shape) for array in jax.tree.leaves(leaf))
    return counts
