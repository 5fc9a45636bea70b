"""The configs of the built-in models; JAX is not imported until a model is built."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from etils import epy

from flaxdigits.components import bounded, count, register
from flaxdigits.errors import FlaxdigitsError
from flaxdigits.models.model import Model

with epy.lazy_imports():
    from flaxdigits.models import (
        chinese_cnn,
        dense_cnn,
        kaggle_cnn,
        lenet5,
        mlp,
        mnist_cnn,
        mse_cnn,
        resnet,
        vit,
    )

if TYPE_CHECKING:
    import flax.linen as nn


@dataclasses.dataclass(frozen=True)
class CnnConfig(Model):
    """Base class of the configs of the five replicated networks.

    Attributes:
      filters: the number of features of each convolution.
      dense: the number of units of each hidden dense layer.
      dropout: the rate of each dropout layer; empty for no dropout.
      batch_norm: whether each convolution is followed by batch normalization.
    """

    convolutions: ClassVar[int | None] = None  # the required length of `filters`; None: any

    filters: tuple[int, ...] = count(())
    dense: tuple[int, ...] = count(())
    dropout: tuple[float, ...] = bounded((), at_least=0, below=1)
    batch_norm: bool = False

    def num_dropout_rates(self) -> int:
        """Returns the required length of `dropout`, unless it is empty."""
        return 1

    def check(self, path: str) -> None:
        rates = self.num_dropout_rates()
        if len(self.dropout) not in (0, rates):
            raise FlaxdigitsError(
                f"{path}.dropout must be empty or have {rates} rates (one for each dropout layer "
                f"of {self.name}), got {len(self.dropout)}")
        if self.convolutions is not None and len(self.filters) != self.convolutions:
            raise FlaxdigitsError(
                f"{path}.filters must have {self.convolutions} numbers for {self.name}, got "
                f"{len(self.filters)}")


@register("chinese_cnn")
@dataclasses.dataclass(frozen=True)
class ChineseCnnConfig(CnnConfig):
    """The network of tf2-chinese-mnist; see `flaxdigits.models.chinese_cnn`."""

    filters: tuple[int, ...] = count((32, 64, 128))
    dense: tuple[int, ...] = count((1024, 512, 256))

    def build(self, num_classes: int) -> nn.Module:
        return chinese_cnn.ChineseCnn(num_classes, **vars(self))

    def num_dropout_rates(self) -> int:
        return len(self.dense)


@register("dense_cnn")
@dataclasses.dataclass(frozen=True)
class DenseCnnConfig(CnnConfig):
    """Yasin Shafiei's network; see `flaxdigits.models.dense_cnn`."""

    filters: tuple[int, ...] = count((32,))
    dense: tuple[int, ...] = count((256, 256))
    dropout: tuple[float, ...] = bounded((0.1,), at_least=0, below=1)

    def build(self, num_classes: int) -> nn.Module:
        return dense_cnn.DenseCnn(num_classes, **vars(self))


@register("kaggle_cnn")
@dataclasses.dataclass(frozen=True)
class KaggleCnnConfig(CnnConfig):
    """The network of handwritten_digit_recognizer; see `flaxdigits.models.kaggle_cnn`."""

    convolutions: ClassVar[int | None] = 4

    filters: tuple[int, ...] = count((32, 32, 64, 64))
    dense: tuple[int, ...] = count((8192, 2048))
    dropout: tuple[float, ...] = bounded((0.5, 0.5, 0.5, 0.5), at_least=0, below=1)

    def build(self, num_classes: int) -> nn.Module:
        return kaggle_cnn.KaggleCnn(num_classes, **vars(self))

    def num_dropout_rates(self) -> int:
        return 2 + len(self.dense)


@register("mnist_cnn")
@dataclasses.dataclass(frozen=True)
class MnistCnnConfig(CnnConfig):
    """The network of `mnist_cnn.py`; see `flaxdigits.models.mnist_cnn`."""

    convolutions: ClassVar[int | None] = 4

    filters: tuple[int, ...] = count((32, 64, 128, 256))
    dense: tuple[int, ...] = count((128,))
    dropout: tuple[float, ...] = bounded((0.25, 0.25, 0.5), at_least=0, below=1)

    def build(self, num_classes: int) -> nn.Module:
        return mnist_cnn.MnistCnn(num_classes, **vars(self))

    def num_dropout_rates(self) -> int:
        return 2 + len(self.dense)


@register("mse_cnn")
@dataclasses.dataclass(frozen=True)
class MseCnnConfig(CnnConfig):
    """The network of "MNIST Digit Recognition with CNN"; see `flaxdigits.models.mse_cnn`."""

    convolutions: ClassVar[int | None] = 2

    filters: tuple[int, ...] = count((32, 32))
    dropout: tuple[float, ...] = bounded((0.3,), at_least=0, below=1)

    def build(self, num_classes: int) -> nn.Module:
        return mse_cnn.MseCnn(num_classes, **vars(self))


@register("lenet5")
@dataclasses.dataclass(frozen=True)
class LeNet5Config(Model):
    """LeNet-5 (LeCun et al. 1998); see `flaxdigits.models.lenet5`.

    Attributes:
      activation: the activation function: `tanh`, as in the paper, or `relu`.
    """

    activation: Literal["tanh", "relu"] = "tanh"

    def build(self, num_classes: int) -> nn.Module:
        return lenet5.LeNet5(num_classes, **vars(self))


@register("mlp")
@dataclasses.dataclass(frozen=True)
class MlpConfig(Model):
    """A multilayer perceptron; see `flaxdigits.models.mlp`.

    Attributes:
      dense: the number of units of each hidden layer.
      dropout: the dropout rate after each hidden layer.
    """

    dense: tuple[int, ...] = count((512, 512))
    dropout: float = bounded(0.2, at_least=0, below=1)

    def build(self, num_classes: int) -> nn.Module:
        return mlp.Mlp(num_classes, **vars(self))


@register("resnet")
@dataclasses.dataclass(frozen=True)
class ResNetConfig(Model):
    """A small residual network (He et al. 2016); see `flaxdigits.models.resnet`.

    Attributes:
      depth: the number of residual blocks in each of the three stages.
      width: the number of features of the first stage, which is doubled in each later stage.
      norm: `batch` for batch normalization, or `group` for group normalization (Wu and He 2018).
    """

    depth: int = bounded(1, at_least=1, at_most=200)
    width: int = bounded(16, at_least=1, at_most=4096)
    norm: Literal["batch", "group"] = "batch"

    def build(self, num_classes: int) -> nn.Module:
        return resnet.ResNet(num_classes, **vars(self))


@register("vit")
@dataclasses.dataclass(frozen=True)
class VitConfig(Model):
    """A small vision transformer (Dosovitskiy et al. 2021); see `flaxdigits.models.vit`.

    Attributes:
      patch_size: the side of a patch in pixels; it must divide the height and width of the images.
      depth: the number of transformer blocks.
      heads: the number of attention heads; it must divide `width`.
      width: the number of features of a token.
      dropout: the dropout rate after the position embedding and in each block.
    """

    patch_size: int = bounded(4, at_least=1, at_most=4096)
    depth: int = bounded(4, at_least=1, at_most=200)
    heads: int = count(4)
    width: int = count(64)
    dropout: float = bounded(0.0, at_least=0, below=1)

    def check(self, path: str) -> None:
        if self.width % self.heads:
            raise FlaxdigitsError(
                f"{path}.heads must divide {path}.width={self.width}, got {self.heads}")

    def build(self, num_classes: int) -> nn.Module:
        return vit.Vit(num_classes, **vars(self))
