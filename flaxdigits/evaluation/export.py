"""A trained network as files that are used without flaxdigits.

Each takes uint8 images of the training set's size, any number of them, does the preprocessing, and
carries the names of the classes and the shape of an image:

- `program.npz`: a `jax.export` artefact for CPU, CUDA and TPU, among plain arrays.

      file = numpy.load("program.npz")
      program = jax.export.deserialize(bytearray(file["program"]))
      logits = program.call(images)
      # [batch, height, width, channels] uint8 -> [batch, classes] float32
      file["class_names"][logits.argmax(-1)]

- `weights.safetensors`: the weights by the names of the layers, for any framework, with all else
  in its metadata. (Preprocessing is named there, not done.)
- `model.onnx`: for ONNX runtimes, with the names in its metadata; needs the extra `onnx`.
"""

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

from flaxdigits.config import to_dict
from flaxdigits.evaluation.trained import TrainedNetwork
from flaxdigits.models.convolution import convolve_native
from flaxdigits.models.layers import Conv, MaxPool
from flaxdigits.training.checkpoints import flat_arrays

PLATFORMS = ("cpu", "cuda", "tpu")


def program_file(network: TrainedNetwork) -> bytes:
    """`program.npz`: `program`, `class_names`, `input_shape`, `step`."""
    batch, = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *network.image_shape), jnp.uint8)
    exported = export.export(jax.jit(network.logits), platforms=PLATFORMS)(images)
    file = io.BytesIO()
    np.savez(file, program=np.frombuffer(exported.serialize(), np.uint8),
             class_names=np.array(network.class_names), input_shape=network.image_shape,
             step=np.int64(network.step))
    return file.getvalue()


def weights_file(network: TrainedNetwork) -> bytes:
    """`weights.safetensors`: arrays named as `params.Conv_0.kernel`."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array)
              for name, array in flat_arrays(network.variables).items()}
    return save(arrays, metadata=metadata(network))


def onnx_file(network: TrainedNetwork) -> bytes:
    """`model.onnx`: `images` -> `logits`.

    Convolution and pooling are ONNX's own, in place of what they are on a CPU here.
    """
    import onnx
    from jax2onnx import to_onnx

    def logits(images: jax.Array) -> jax.Array:
        with nn.intercept_methods(_as_of_others):
            return network.logits(images)

    model = to_onnx(
        logits, [jax.ShapeDtypeStruct(("batch", *network.image_shape), jnp.uint8)],
        model_name=network.config.experiment, input_names=["images"], output_names=["logits"])
    onnx.helper.set_model_props(model, metadata(network))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def has_onnx() -> bool:
    """Whether the extra `onnx` is installed."""
    return importlib.util.find_spec("jax2onnx") is not None


def metadata(network: TrainedNetwork) -> dict[str, str]:
    """What a file tells of itself: texts, all but two of which are JSON."""
    config = network.config
    return {
        "experiment": config.experiment, "preprocessing": config.data.preprocessing,
        "class_names": json.dumps(network.class_names, ensure_ascii=False),
        "input_shape": json.dumps(network.image_shape), "step": json.dumps(network.step),
        "model": json.dumps(to_dict(config.model))}


def _as_of_others(
    method: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
) -> Any:
    """Computes our own layers by operations that every framework has."""
    layer = context.module
    if isinstance(layer, Conv) and context.method_name == "__call__":
        weights = layer.variables["params"]
        return convolve_native(args[0], weights["kernel"], layer.padding) + weights["bias"]
    if isinstance(layer, MaxPool) and context.method_name == "__call__":
        return nn.max_pool(args[0], window_shape=(2, 2), strides=(2, 2))
    return method(*args, **kwargs)
