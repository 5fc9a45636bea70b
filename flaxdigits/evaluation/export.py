"""Exports a trained network to files that can be used without flaxdigits.

Each file contains the names of the classes and the shape of an image. Inputs are uint8 images of
the size of the training images, in batches of any size:

- `program.npz`: preprocessing and network as a `jax.export` program for CPU, CUDA and TPU, stored
  in a file of NumPy arrays.

      file = numpy.load("program.npz")
      program = jax.export.deserialize(bytearray(file["program"]))
      logits = program.call(images)
      # [batch, height, width, channels] uint8 -> [batch, classes] float32
      file["class_names"][logits.argmax(-1)]

- `weights.safetensors`: the weights by layer name, for any framework. The metadata contain the
  config of the model and the name of the preprocessing, which has to be applied to the images.
- `model.onnx`: preprocessing and network for ONNX runtimes; needs the extra `onnx`.
"""

import functools
import importlib.util
import io
import json
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from safetensors.numpy import save

from flaxdigits.config import to_dict
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.evaluation.trained import TrainedNetwork
from flaxdigits.models.convolution import convolve_native
from flaxdigits.models.layers import Conv, MaxPool
from flaxdigits.training.checkpoints import flat_arrays
from flaxdigits.training.parallel import first_line

PLATFORMS = ("cpu", "cuda", "tpu")


def program_file(network: TrainedNetwork) -> bytes:
    """Returns the content of `program.npz`: `program`, `class_names`, `input_shape`, `step`.

    Raises:
      FlaxdigitsError: if a custom model cannot be traced with a symbolic batch size.
    """
    batch, = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *network.image_shape), jnp.uint8)
    logits = functools.partial(network.apply, network.variables)
    try:
        exported = export.export(jax.jit(logits), platforms=PLATFORMS)(images)
    except Exception as error:  # any that the code of a custom model raises
        raise FlaxdigitsError(
            f"model {network.config.model.name}: cannot be exported for any batch size: "
            f"{first_line(error)}; for the batch size, use images.shape[0] in place of len(images)"
        ) from error
    file = io.BytesIO()
    np.savez(file, program=np.frombuffer(exported.serialize(), np.uint8),
             class_names=np.array(network.class_names), input_shape=network.image_shape,
             step=np.int64(network.step))
    return file.getvalue()


def weights_file(network: TrainedNetwork) -> bytes:
    """Returns the content of `weights.safetensors`: arrays such as `params.Conv_0.kernel`."""
    arrays = {name: np.ascontiguousarray(array)
              for name, array in flat_arrays(network.variables).items()}
    return save(arrays, metadata=metadata(network))


def onnx_file(network: TrainedNetwork) -> bytes:
    """Returns the content of `model.onnx`, which maps `images` to `logits`.

    Convolution and pooling become the corresponding ONNX operators instead of the implementations
    of `flaxdigits.models.layers` for CPUs.
    """
    import onnx  # optional dependencies of the extra `onnx`
    from jax2onnx import to_onnx

    def logits(images: jax.Array) -> jax.Array:
        with nn.intercept_methods(_use_standard_operations):
            return network.apply(network.variables, images)

    model = to_onnx(
        logits, [jax.ShapeDtypeStruct(("batch", *network.image_shape), jnp.uint8)],
        model_name=network.config.experiment, input_names=["images"], output_names=["logits"])
    onnx.helper.set_model_props(model, metadata(network))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def has_onnx() -> bool:
    """Returns whether the extra `onnx` is installed."""
    return importlib.util.find_spec("jax2onnx") is not None


def metadata(network: TrainedNetwork) -> dict[str, str]:
    """Returns the metadata of the files; values other than experiment and preprocessing are JSON.
    """
    config = network.config
    return {
        "experiment": config.experiment, "preprocessing": config.data.preprocessing,
        "class_names": json.dumps(network.class_names, ensure_ascii=False),
        "input_shape": json.dumps(network.image_shape), "step": json.dumps(network.step),
        "model": json.dumps(to_dict(config.model))}


def _use_standard_operations(
    method: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
) -> Any:
    """Replaces the implementations of the layers by operations that every framework has."""
    layer = context.module
    if isinstance(layer, Conv) and context.method_name == "__call__":
        weights = layer.variables["params"]
        return convolve_native(args[0], weights["kernel"], layer.padding) + weights["bias"]
    if isinstance(layer, MaxPool) and context.method_name == "__call__":
        return nn.max_pool(args[0], window_shape=(2, 2), strides=(2, 2))
    return method(*args, **kwargs)
