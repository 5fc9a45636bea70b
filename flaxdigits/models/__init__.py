"""Models: linen modules from images to logits, each of which is built from a typed config.

A model is selected by the name of its config (`--set model.name=resnet`); `register` adds a custom
one. Importing this package does not import JAX; importing the modules of the networks does.
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
