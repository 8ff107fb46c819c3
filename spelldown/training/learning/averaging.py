"""Weights averaged over training, which are those that are validated and kept as best.

An average lies nearer the middle of a valley than any single step (Polyak and Juditsky, 1992;
Izmailov et al., "Averaging weights leads to wider optima", UAI 2018). Training itself goes on from
the raw weights. Everything in the model's state is averaged: weights and the running statistics of
norms; counters, being whole numbers, are taken from the latest weights.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from spelldown.settings import Settings

Weights = dict[str, Tensor]


class NoAveraging(Settings):
    """Validate and keep the weights as they are."""

    kind: Literal["none"] = "none"


class ExponentialAveraging(Settings):
    """A mean that forgets: after each update, average = d x average + (1 - d) x weights.

    d = min(decay, (1 + u) / (10 + u)) at the u-th update averaged, so that the weights of the first
    updates are soon forgotten.
    """

    kind: Literal["exponential"] = "exponential"
    decay: float = Field(0.999, gt=0, lt=1)
    """Reaches back about 1 / (1 - decay) updates; a few epochs are a good length."""
    from_epoch: int = Field(1, ge=1)
    """Before this epoch the weights are taken as they are."""


class LastAveraging(Settings):
    """The mean of the weights at the ends of the last epochs."""

    kind: Literal["last"] = "last"
    count: int = Field(5, ge=1)
    """Epochs averaged, fewer at the start. Each is held in memory and in the checkpoint."""
    from_epoch: int = Field(1, ge=1)
    """Before this epoch the weights are taken as they are."""


AveragingSettings = Annotated[
    NoAveraging | ExponentialAveraging | LastAveraging, Field(discriminator="kind")
]


class Averaging(ABC):
    """An average of a model's weights that follows its training."""

    @abstractmethod
    def updated(self, model: nn.Module, epoch: int) -> None:
        """Takes note of an update, in an epoch."""

    @abstractmethod
    def epoch_ended(self, model: nn.Module, epoch: int) -> None:
        """Takes note of an epoch's end, before its validation. Said twice, it counts once."""

    @abstractmethod
    def average(self) -> Weights | None:
        """The averaged weights, under the names of `state_dict`; None while there are none."""

    @abstractmethod
    def tensors(self) -> Weights:
        """What a resumed run must know, as named tensors."""

    @abstractmethod
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes up what `tensors` gave."""

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Puts the averaged weights into the model; the raw ones come back bit for bit."""
        average = self.average()
        if average is None:
            yield
            return
        raw = copy_of(model)
        model.load_state_dict(average)
        try:
            yield
        finally:
            model.load_state_dict(raw)


class Raw(Averaging):
    """No averaging."""

    def updated(self, model: nn.Module, epoch: int) -> None:
        pass

    def epoch_ended(self, model: nn.Module, epoch: int) -> None:
        pass

    def average(self) -> Weights | None:
        return None

    def tensors(self) -> Weights:
        return {}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        pass


class Exponential(Averaging):
    UPDATES = "updates averaged"  # no weight can have this name: it has a space

    def __init__(self, settings: ExponentialAveraging) -> None:
        self.settings = settings
        self.updates = 0
        self.mean: Weights = {}

    @torch.no_grad()
    def updated(self, model: nn.Module, epoch: int) -> None:
        if epoch < self.settings.from_epoch:
            return
        if not self.mean:
            self.mean = copy_of(model)
            return
        self.updates += 1
        decay = min(self.settings.decay, (1 + self.updates) / (10 + self.updates))
        means, latest = [], []
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                means.append(self.mean[name])
                latest.append(tensor)
            else:
                self.mean[name].copy_(tensor)
        torch._foreach_lerp_(means, latest, 1 - decay)

    def epoch_ended(self, model: nn.Module, epoch: int) -> None:
        pass

    def average(self) -> Weights | None:
        return self.mean or None

    def tensors(self) -> Weights:
        return {**self.mean, self.UPDATES: torch.tensor(self.updates)} if self.mean else {}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.mean = {
            name: tensor.clone() for name, tensor in tensors.items() if name != self.UPDATES
        }
        self.updates = int(tensors[self.UPDATES]) if self.mean else 0


class Last(Averaging):
    def __init__(self, settings: LastAveraging) -> None:
        self.settings = settings
        self.ends: dict[int, Weights] = {}  # by epoch

    def updated(self, model: nn.Module, epoch: int) -> None:
        pass

    def epoch_ended(self, model: nn.Module, epoch: int) -> None:
        if epoch < self.settings.from_epoch:
            return
        self.ends[epoch] = copy_of(model, device="cpu")
        for old in sorted(self.ends)[: -self.settings.count]:
            del self.ends[old]

    def average(self) -> Weights | None:
        if not self.ends:
            return None
        latest = self.ends[max(self.ends)]
        if len(self.ends) == 1:
            return latest
        return {
            name: _mean([weights[name] for weights in self.ends.values()])
            if tensor.is_floating_point()
            else tensor
            for name, tensor in latest.items()
        }

    def tensors(self) -> Weights:
        return {
            f"{epoch} {name}": tensor
            for epoch, weights in self.ends.items()
            for name, tensor in weights.items()
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self.ends = {}
        for key in sorted(tensors, key=lambda key: int(key.split(" ", 1)[0])):
            epoch, name = key.split(" ", 1)
            self.ends.setdefault(int(epoch), {})[name] = tensors[key].to("cpu", copy=True)


def build_averaging(settings: AveragingSettings) -> Averaging:
    """The averaging that the settings describe."""
    match settings:
        case NoAveraging():
            return Raw()
        case ExponentialAveraging():
            return Exponential(settings)
        case LastAveraging():
            return Last(settings)


def copy_of(model: nn.Module, device: str | None = None) -> Weights:
    """A copy of all that is in the model's state, on its own device or on another.

    Weights that are one and the same under two names are copied under both.
    """
    return {
        name: tensor.detach().to(device or tensor.device, copy=True)
        for name, tensor in model.state_dict().items()
    }


def _mean(tensors: list[Tensor]) -> Tensor:
    """The mean, summed in float64 so that what is constant stays so to the last bit."""
    total = torch.zeros_like(tensors[0], dtype=torch.float64)
    for tensor in tensors:
        total += tensor
    return (total / len(tensors)).to(tensors[0].dtype)
