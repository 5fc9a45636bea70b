"""What Keras or PyTorch makes of our weights, in a process that holds no other framework.

    python tests/peer_side.py torch FOLDER

Reads `<name>.npz` of each network in a folder (inputs, gradients, kernel_0, bias_0 and so on) and
writes `<name>_torch.npz`: `outputs`, and `params`, where the optimizer's steps lead from 0.
"""

import sys
from pathlib import Path

import numpy as np

Layers = list[tuple[np.ndarray, np.ndarray]]  # kernel and bias, convolutions first


def keras_side(
    name: str, inputs: np.ndarray, layers: Layers, gradients: np.ndarray
) -> dict[str, np.ndarray]:
    from flaxdigits.benchmark import keras_peer  # first, as it names Keras's backend

    import keras  # isort: skip

    model = keras.Sequential([keras.Input(inputs.shape[1:]), *keras_peer.network(name)])
    model.set_weights([array for layer in layers for array in layer])
    optimizer = keras_peer.optimizer(name)
    params = keras.Variable(np.zeros(gradients.shape[1], np.float32))
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [params])
    return {"outputs": model(inputs).numpy(), "params": params.numpy()}


def torch_side(
    name: str, inputs: np.ndarray, layers: Layers, gradients: np.ndarray
) -> dict[str, np.ndarray]:
    import torch

    from flaxdigits.benchmark import torch_peer

    model = torch_peer.network(name).eval()
    modules = [module for module in model if list(module.parameters())]
    with torch.no_grad():
        shape = None  # of what the convolutions give, before it is flattened
        for module, (kernel, bias) in zip(modules, layers, strict=True):
            if kernel.ndim == 4:
                weight, shape = kernel.transpose(3, 2, 0, 1), (-1, kernel.shape[3])
            elif shape:  # PyTorch flattens the channels first
                places = kernel.reshape(*shape, kernel.shape[1])
                weight, shape = places.transpose(2, 1, 0).reshape(kernel.shape[1], -1), None
            else:
                weight = kernel.T
            module.weight.copy_(torch.from_numpy(weight.copy()))
            module.bias.copy_(torch.from_numpy(bias.copy()))
        outputs = model(torch.from_numpy(inputs.transpose(0, 3, 1, 2).copy()))
    params = torch.nn.Parameter(torch.zeros(gradients.shape[1]))
    optimizer = torch_peer.make_optimizer(name, [params])
    for gradient in gradients:
        params.grad = torch.from_numpy(gradient)
        optimizer.step()
    return {"outputs": outputs.numpy(), "params": params.detach().numpy()}


def main(peer: str, folder: Path) -> None:
    side = {"keras": keras_side, "torch": torch_side}[peer]
    for file in sorted(folder.glob("*_ours.npz")):
        name = file.name.removesuffix("_ours.npz")
        with np.load(file) as arrays:
            count = sum(key.startswith("kernel_") for key in arrays)
            layers = [(arrays[f"kernel_{i}"], arrays[f"bias_{i}"]) for i in range(count)]
            found = side(name, arrays["inputs"], layers, arrays["gradients"])
        np.savez(folder / f"{name}_{peer}.npz", **found)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
