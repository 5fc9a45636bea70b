"""Models: linen modules from images to logits, each built from a typed config of its own.

A model is chosen by the name of its config (`--set model.name=resnet`); `register` adds another.
Importing this package imports no JAX; the modules of the networks do.
"""

from flaxdigits.models.configs import (
    ChineseCnnConfig,
    CnnConfig,
    DenseCnnConfig,
    KaggleCnnConfig,
    LeNet5Config,
    MlpConfig,
    MnistCnnConfig,
    MseCnnConfig,
    ResNetConfig,
    VitConfig,
)
from flaxdigits.models.model import Model, build_model, check_logits, register

__all__ = [
    "ChineseCnnConfig", "CnnConfig", "DenseCnnConfig", "KaggleCnnConfig", "LeNet5Config",
    "MlpConfig", "MnistCnnConfig", "Model", "MseCnnConfig", "ResNetConfig", "VitConfig",
    "build_model", "check_logits", "register",
]
