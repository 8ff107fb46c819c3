"""The arithmetic of attention: one step of each kind, forward, and backward by hand.

`attention.py` says which kind computes what, and where it comes from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from functools import cached_property
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from spelldown.model.precision import exact
from spelldown.model.spelling.sharing import Owners, Projected, sigmoids_weighed


class Kernel(ABC):
    """One step of attention over one batch: forward, and backward by hand.

    Within the unrolled loop: `attend` for every step in order, then `backward` for every step in
    reverse order, then the gradients of values, keys and parameters once. All of it is computed in
    float32 at least, whatever other products are: here they are so small that rounding what goes
    into them takes longer than they do (docs/log.md). A step may come with fewer queries than the
    batch has utterances: they are the first N of it, and B stands for N in that step's shapes.
    Learned parameters, gradients and the queries of `learned_gradients` come in float32 at least.

    Within search, hypotheses of one utterance may share it (`share`): queries are then N
    hypotheses, `owners` tells whose, and N stands for B in the shapes of queries and weights.
    """

    needs_past = False  # whether `attend` looks at the earlier weights
    owners: Owners | None = None

    def __init__(self, projected: Projected, *learned: Tensor) -> None:
        self.projected, self.learned = projected, learned
        batch, self.heads, frames, _ = projected.keys.shape
        self.keys = exact(projected.keys)  # (B, H, T, D/H), or as a kind lays them out
        self.values = exact(projected.values).flatten(0, 1)  # (B H, T, C/H)
        bias = torch.zeros(batch, 1, frames, device=projected.mask.device)
        self.bias = bias.masked_fill_(~projected.mask[:, None], -torch.inf)  # (B, 1, T)

    def select(self, rows: Tensor) -> Self:
        """The same for utterances `rows` (N,), or hypotheses where those share utterances."""
        if self.owners is None:
            return type(self)(self.projected.select(rows), *self.learned)
        return self._shared(self.owners.select(rows))

    def share(self, most: int) -> Self:
        """The same, where each utterance may come to have up to `most` hypotheses."""
        return self._shared(Owners.one_each(len(self.bias), most, self.bias.device))

    def forget(self, kept: Tensor) -> Self:
        """The same hypotheses, where only utterances `kept` (U,), rising, are remembered."""
        assert self.owners is not None, "only what is shared is forgotten apart from its rows"
        left = type(self)(self.projected.select(kept), *self.learned)
        return left._shared(self.owners.forget(kept))

    def _shared(self, owners: Owners) -> Self:
        shared = copy(self)
        shared.owners = owners
        return shared

    def begin_backward(self) -> None:  # noqa: B027 (most gather nothing)
        """Forgets what an earlier backward pass gathered."""

    @abstractmethod
    def energies(self, query: Tensor, past: Tensor | None) -> Tensor:
        """Energies (B, H, T) of queries (B, D), given earlier weights (B, H, T)."""

    @abstractmethod
    def energies_backward(
        self, gradient: Tensor, query: Tensor, past: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """From the gradient of the energies (B, H, T): those of the query and of the past.

        Gradients of keys and learned parameters are gathered on the way.
        """

    @abstractmethod
    def learned_gradients(self, queries: Tensor, gradients: Tensor) -> tuple[Tensor, ...]:
        """Gradients of the keys (B, H, T, D/H) and of each learned parameter.

        queries (L, B, D) and the energies' gradients (L, B, H, T) of all steps.
        """

    def attend(self, query: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Context (B, C) and weights (B, H, T) for queries (B, D)."""
        rows = len(query)
        bias = self.bias[:rows] if self.owners is None else self.bias[self.owners.of]
        with torch.autocast(query.device.type, enabled=False):
            weights = torch.softmax(self.energies(exact(query), past) + bias, dim=2)
            context = self._product(weights, self.values)
        return context.view(rows, -1), weights

    def _product(self, left: Tensor, right: Tensor) -> Tensor:
        """Rows (N, H, X) times what is remembered of each one's utterance (B H, X, Y): (N, H, Y).

        One matrix product an utterance and head, with all of its hypotheses as rows.
        """
        if self.owners is None:
            product = torch.bmm(left.flatten(0, 1)[:, None], right[: len(left) * self.heads])
            return product.view(len(left), self.heads, -1)
        asked = self.owners.grid(left).transpose(1, 2).flatten(0, 1)  # (B H, K, X)
        product = torch.bmm(asked, right).unflatten(0, (-1, self.heads))
        return self.owners.rows(product.transpose(1, 2))

    def backward(
        self,
        weights: Tensor,
        d_context: Tensor,
        d_weights: Tensor | None,
        query: Tensor,
        past: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """One step backwards: gradients of query (B, D), past and energies (B, H, T).

        `d_weights` is what later steps ask of these weights (location-aware attention only).
        """
        heads_gradient = d_context.view(len(query) * self.heads, 1, -1)
        values = self.values[: len(heads_gradient)].transpose(1, 2)
        through = torch.bmm(heads_gradient, values).view(weights.shape)
        pull = through if d_weights is None else through + d_weights
        d_energies = weights * (pull - (pull * weights).sum(2, keepdim=True))
        d_query, d_past = self.energies_backward(d_energies, exact(query), past)
        return d_query, d_past, d_energies

    def value_gradient(self, weights: Tensor, d_contexts: Tensor) -> Tensor:
        """Gradient of the values (B, H, T, C/H): one product over all steps.

        weights (L, B, H, T) and the contexts' gradients (L, B, C).
        """
        steps, batch = d_contexts.shape[:2]
        over_steps = weights.permute(1, 2, 3, 0).flatten(0, 1)
        pulls = d_contexts.view(steps, batch * self.heads, -1).transpose(0, 1)
        product = torch.bmm(over_steps, pulls)
        return product.view(batch, self.heads, *product.shape[1:])


class DotKernel(Kernel):
    """Scaled dot product."""

    def __init__(self, projected: Projected, *learned: Tensor) -> None:
        super().__init__(projected, *learned)
        self.flat_keys = self.keys.flatten(0, 1)  # (B H, T, D/H)
        self.scale: float = projected.keys.shape[3] ** -0.5

    def energies(self, query: Tensor, past: Tensor | None) -> Tensor:
        asked = query.unflatten(1, (self.heads, -1))
        return self._product(asked, self.flat_keys.transpose(1, 2)) * self.scale

    def energies_backward(
        self, gradient: Tensor, query: Tensor, past: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        pull = gradient.flatten(0, 1)[:, None]
        return torch.bmm(pull, self.flat_keys[: len(pull)]).view(query.shape) * self.scale, None

    def learned_gradients(self, queries: Tensor, gradients: Tensor) -> tuple[Tensor, ...]:
        over_steps = gradients.permute(1, 2, 3, 0).flatten(0, 1)  # (B H, T, L)
        asked = queries.view(len(queries), self.flat_keys.shape[0], -1)
        product = torch.bmm(over_steps, asked.transpose(0, 1)) * self.scale
        return (product.view(self.keys.shape),)


class CosineKernel(DotKernel):
    """Cosine of query and key (the keys come normalised), times a learned scale a head."""

    def __init__(self, projected: Projected, sharpness: Tensor) -> None:
        super().__init__(projected, sharpness)
        self.scale = 1.0
        self.sharpness = sharpness

    def _normalised(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """The query (B, H, D/H) with every head of length one, and the lengths before."""
        heads = query.unflatten(1, (self.heads, -1))
        norm = heads.norm(dim=2, keepdim=True).clamp_min(1e-6)
        return heads / norm, norm

    def energies(self, query: Tensor, past: Tensor | None) -> Tensor:
        unit = self._normalised(query)[0].flatten(1)
        return super().energies(unit, past) * self.sharpness[None, :, None]

    def energies_backward(
        self, gradient: Tensor, query: Tensor, past: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        unit, norm = self._normalised(query)
        scaled = gradient * self.sharpness[None, :, None]
        d_unit = super().energies_backward(scaled, unit.flatten(1), None)[0]
        d_unit = d_unit.view(unit.shape)
        d_query = (d_unit - unit * (unit * d_unit).sum(2, keepdim=True)) / norm
        return d_query.flatten(1), None

    def learned_gradients(self, queries: Tensor, gradients: Tensor) -> tuple[Tensor, ...]:
        units = torch.stack([self._normalised(query)[0] for query in queries])  # (L, B, H, D/H)
        scaled = gradients * self.sharpness[None, None, :, None]
        (d_keys,) = super().learned_gradients(units.flatten(2), scaled)
        cosines = torch.einsum("lbhd,bhtd->lbht", units, self.keys)
        return d_keys, (cosines * gradients).sum((0, 1, 3))


class AdditiveKernel(Kernel):
    """A one-layer network over query and key."""

    def __init__(self, projected: Projected, vector: Tensor, *learned: Tensor) -> None:
        super().__init__(projected, vector, *learned)
        self.keys = self.keys.transpose(1, 2).flatten(2)  # (B, T, D), all heads side by side
        self.vector = vector.flatten()  # (D,)
        # (D, H): each head sums its own part
        self.weigh: Tensor = torch.block_diag(*vector[:, :, None])
        self.d_keys: Tensor | None = None  # (B, T, D), without the vector
        self.d_weigh = torch.zeros_like(self.weigh, requires_grad=False)

    def begin_backward(self) -> None:
        self.d_keys = None
        self.d_weigh = torch.zeros_like(self.weigh, requires_grad=False)

    def _locate(self, places: Tensor, past: Tensor | None) -> Tensor:
        """Keys and query (B, T, D), and what is added for where attention has been."""
        return places

    def _activations(self, query: Tensor, past: Tensor | None) -> Tensor:
        """(B, T, D): what the layer's units say of every frame."""
        return self._locate(self.keys[: len(query)] + query[:, None], past).tanh()

    def energies(self, query: Tensor, past: Tensor | None) -> Tensor:
        if self.owners is not None:
            return self._energies_of_hypotheses(query, past, self.owners.of)
        active = self._activations(query, past)
        # All frames as rows of one product: a product an utterance takes three times as long.
        energies = (active.flatten(0, 1) @ self.weigh).view(*active.shape[:2], self.heads)
        by_head: Tensor = energies.transpose(1, 2)
        return by_head

    @cached_property
    def _doubled(self) -> tuple[Tensor, Tensor]:
        return 2 * self.keys, 2 * self.weigh

    def _energies_of_hypotheses(self, query: Tensor, past: Tensor | None, of: Tensor) -> Tensor:
        """The same in search, forward alone.

        As v . tanh(x) = 2v . sigmoid(2x) - v . 1, and torch's sigmoid is six times as fast.
        """
        keys, vector = self._doubled
        energies = sigmoids_weighed(keys, of, 2 * query, self._trails(past), vector)
        return energies.transpose(1, 2) - self.weigh.sum(0)[:, None]

    def _trails(self, past: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Two factors (N, X, T) and (X, D) of what is added, doubled, for where attention was."""
        return None

    def energies_backward(
        self, gradient: Tensor, query: Tensor, past: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        active = self._activations(query, past)  # computed anew: keeping all steps is too large
        by_frame = gradient.transpose(1, 2)  # (B, T, H)
        self.d_weigh += active.flatten(0, 1).t() @ by_frame.flatten(0, 1)
        # d tanh = 1 - tanh^2; the vector is applied after summing, which spares a pass
        steep = active.square_().neg_().add_(1)
        steep.unflatten(2, (self.heads, -1)).mul_(by_frame[..., None])
        if self.d_keys is None:
            self.d_keys = torch.zeros_like(self.keys)
        self.d_keys[: len(steep)] += steep
        return steep.sum(1) * self.vector, self._past_backward(steep, past)

    def _past_backward(self, steep: Tensor, past: Tensor | None) -> Tensor | None:
        """The gradient (B, H, T) of the past, from that of `_locate` (B, T, D) but for the vector;
        those of what is learned of it are gathered."""
        return None

    def learned_gradients(self, queries: Tensor, gradients: Tensor) -> tuple[Tensor, ...]:
        assert self.d_keys is not None, "gradients are asked for before any step's backward"
        d_keys = (self.d_keys * self.vector).unflatten(2, (self.heads, -1)).transpose(1, 2)
        heads = self.d_weigh.view(self.heads, -1, self.heads)  # off the diagonal nothing is learned
        return d_keys, heads.diagonal(dim1=0, dim2=2).t()


class LocationKernel(AdditiveKernel):
    """Additive attention that also hears where it has looked."""

    needs_past = True

    def __init__(
        self, projected: Projected, vector: Tensor, filters: Tensor, spread: Tensor
    ) -> None:
        super().__init__(projected, vector, filters, spread)
        self.filters = filters  # (channels, H, taps)
        self.spread = spread  # (channels, D)
        self.d_filters = torch.zeros_like(filters, requires_grad=False)
        self.d_spread = torch.zeros_like(spread, requires_grad=False)

    def begin_backward(self) -> None:
        super().begin_backward()
        self.d_filters = torch.zeros_like(self.filters, requires_grad=False)
        self.d_spread = torch.zeros_like(self.spread, requires_grad=False)

    def _trail(self, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """The windows (B T, H taps) of past weights (B, H, T), and they through the filters
        (B T, channels).

        As a product with all windows of what was looked at. A library's convolution plans anew for
        every number of rows and frames, and while training hardly a step has those of another.
        """
        assert past is not None, "location-aware attention needs to be told of the past"
        windows = _windows(past, self.filters.shape[2]).flatten(0, 1)
        return windows, windows @ self.filters.flatten(1).t()

    def _locate(self, places: Tensor, past: Tensor | None) -> Tensor:
        trail = self._trail(past)[1]
        return torch.addmm(places.flatten(0, 1), trail, self.spread).view_as(places)

    def _trails(self, past: Tensor | None) -> tuple[Tensor, Tensor] | None:
        assert past is not None, "location-aware attention needs to be told of the past"
        # Many rows of few shapes: here a convolution is faster (docs/log.md).
        middle = self.filters.shape[2] // 2
        return functional.conv1d(past, self.filters, padding=middle), 2 * self.spread

    def _past_backward(self, steep: Tensor, past: Tensor | None) -> Tensor | None:
        windows, trail = self._trail(past)
        places = steep.flatten(0, 1)
        self.d_spread += trail.t() @ places * self.vector
        d_trail = places @ (self.spread * self.vector).t()
        self.d_filters += (d_trail.t() @ windows).view_as(self.filters)
        # What a frame was to the windows around it, it is told by theirs, mirrored.
        mirrored = self.filters.flip(2).transpose(0, 1).flatten(1)  # (H, channels * taps)
        trails = d_trail.view(*steep.shape[:2], -1).transpose(1, 2)
        told = _windows(trails, self.filters.shape[2]) @ mirrored.t()
        return told.transpose(1, 2)

    def learned_gradients(self, queries: Tensor, gradients: Tensor) -> tuple[Tensor, ...]:
        return *super().learned_gradients(queries, gradients), self.d_filters, self.d_spread


def _windows(rows: Tensor, taps: int) -> Tensor:
    """What `taps` (odd) places around each of (B, C, T) hold, silence beyond both ends:
    (B, T, C * taps)."""
    padded = functional.pad(rows, (taps // 2, taps // 2))
    return padded.unfold(2, taps, 1).transpose(1, 2).flatten(2)
