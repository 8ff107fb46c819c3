"""The speller's loop over a whole reference, as one function of autograd.

What a step-by-step loop under autograd does hundreds of times over, small and slow, is done here
once and large: the embedding's share of the first cell is a table of one row a symbol; the
gradients of all weights are single products over all steps; the elementwise half of the LSTM's
backward is computed for all steps at once, so that the backward loop is left with one product a
cell and a step. Sentences come longest first, and a step spells only those that have not ended.
No gradient flows through a drawn symbol, so drawn feedback needs nothing more.

Gates stand in the order input, forget, output, candidate; L steps, B utterances, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spelldown.model.precision import product_dtype
from spelldown.model.spelling.attention import Attention
from spelldown.model.spelling.kernels import Kernel, Projected

EOS = 2  # the first symbol that a speller may write; before it come <pad> and <sos>


@dataclass(frozen=True)
class Loop:
    """One pass over a reference, with everything drawn by chance settled beforehand.

    symbols (L, B): the reference from <sos> on. active: how many sentences each of the L steps
    still spells; they are the first ones, so sentences stand longest first. forced (L, B): where
    it is fed (True) rather than the speller's own symbol. noise (L, B, V): Gumbel noise when
    symbols are drawn. masks (L, layers, B, D): scaled dropout of the cells' outputs.
    logits(top, context) gives (B, V).
    """

    symbols: Tensor
    active: list[int]
    forced: Tensor
    noise: Tensor | None
    temperature: float
    masks: Tensor | None
    logits: Callable[[Tensor, Tensor], Tensor]
    soft: bool = False  # feed a differentiable mixture (Gumbel-softmax)

    def draw(self, step: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The speller's own symbol for `step`, as a distribution (N, V) and as symbols (N,).

        For the first N sentences, from their logits. The largest of logits / temperature + Gumbel
        noise is a draw from their softmax.
        """
        scores = logits.float() / self.temperature
        scores[:, :EOS] = -torch.inf  # <pad> and <sos> are never spelled
        if self.noise is not None:
            scores = scores + self.noise[step, : len(scores)] / (
                self.temperature if self.soft else 1.0
            )
        return scores.softmax(1), scores.argmax(1)


def unroll(
    loop: Loop,
    attention: Attention,
    projected: Projected,
    table: Tensor,
    cells: Sequence[tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cells and attention over all steps.

    table (V, 4 D): each symbol's share of the first cell's gates, bias included. cells: weight
    (4 D, I + D) and bias (4 D) of each; the first cell's embedding columns are in the table and
    are skipped here. Gives the top cell's outputs (L, B, D), contexts (L, B, C), weights
    (L, B, H, T), which carry no gradient, and the symbols that were fed (L, B); all are zero
    where a sentence has ended.
    """
    embedding = cells[0][0].shape[1] - cells[0][0].shape[0] // 4 - attention.context_width
    first = cells[0][0][:, embedding:]
    above = [tensor for cell in cells[1:] for tensor in cell]
    outputs: tuple[Tensor, Tensor, Tensor, Tensor] = _Unrolled.apply(
        loop,
        attention,
        projected.mask,
        projected.keys,
        projected.values,
        table,
        attention.query.weight,
        first,
        *above,
        *attention.energy,
    )
    return outputs


class _Saved:
    """What forward keeps for backward: everything is (L, B, ...), one entry a cell in lists."""

    def __init__(self, steps: int, batch: int, inputs: list[int], width: int, like: Tensor) -> None:
        product, device = product_dtype(like), like.device
        sizes = [(steps + 1, batch, i + width) for i in inputs]
        self.inputs = [torch.zeros(size, dtype=product, device=device) for size in sizes]
        shape = (steps, batch, 4 * width)
        self.gates = [like.new_empty(shape) for _ in inputs]
        self.cells = [like.new_zeros(steps + 1, batch, width) for _ in inputs]
        self.tanhs = [like.new_empty(steps, batch, width) for _ in inputs]
        self.outputs = torch.zeros(steps, batch, width, dtype=product, device=device)


class _Unrolled(torch.autograd.Function):
    """Forward and backward of the loop; see `unroll` for the shapes."""

    @staticmethod
    def forward(
        ctx: Any,
        loop: Loop,
        attention: Attention,
        mask: Tensor,
        keys: Tensor,
        values: Tensor,
        table: Tensor,
        query: Tensor,
        first: Tensor,
        *rest: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        layers = 1 + (len(rest) - len(attention.energy)) // 2
        above, learned = rest[: 2 * (layers - 1)], rest[2 * (layers - 1) :]
        kernel = attention.kernel(Projected(keys, values, mask), learned)
        real, product = query.dtype, product_dtype(query)
        weights = [w.to(product) for w in (first, *above[::2])]
        ask = query.to(product)
        steps, batch = loop.symbols.shape
        width, context_width = first.shape[0] // 4, attention.context_width
        saved = _Saved(steps, batch, [context_width] + [width] * (layers - 1), width, query)
        looked = query.new_zeros(steps, batch, *keys.shape[1:3])
        contexts = query.new_zeros(steps, batch, context_width)
        queries = query.new_zeros(steps, batch, len(query), dtype=product)
        pasts = torch.zeros_like(looked) if kernel.needs_past else None
        rows = table.to(real)
        fed = loop.symbols.clone()
        always = loop.forced.all(1).tolist()  # one transfer, not one a step
        for i, n in enumerate(loop.active):
            if n == 0:
                break  # only padding is left
            if not always[i]:
                logits = loop.logits(saved.outputs[i - 1, :n].to(real), contexts[i - 1, :n])
                own = loop.draw(i, logits)[1]
                fed[i, :n] = torch.where(loop.forced[i, :n], fed[i, :n], own)
            for k in range(layers):
                bias = rows[fed[i, :n]] if k == 0 else above[2 * k - 1]
                _cell(saved, k, i, n, weights[k], bias)
                output = saved.inputs[k][i + 1, :n, -width:]
                if loop.masks is not None:
                    output = output * loop.masks[i, k, :n]
                if k + 1 < layers:
                    saved.inputs[k + 1][i, :n, :width] = output
            saved.outputs[i, :n] = output
            asked = torch.mm(saved.outputs[i, :n], ask.t(), out=queries[i, :n])
            past = None if pasts is None else pasts[i, :n]
            contexts[i, :n], looked[i, :n] = kernel.attend(asked, past)
            saved.inputs[0][i + 1, :n, :context_width] = contexts[i, :n]
            if pasts is not None and i + 1 < steps:
                pasts[i + 1] = looked[i] if attention.past == "last" else pasts[i] + looked[i]
        ctx.loop, ctx.attention, ctx.kernel, ctx.saved = loop, attention, kernel, saved
        ctx.looked, ctx.pasts, ctx.queries, ctx.fed = looked, pasts, queries, fed
        ctx.weights, ctx.ask, ctx.types = weights, ask, (keys.dtype, values.dtype, table.dtype)
        ctx.vocabulary = table.shape[0]
        ctx.mark_non_differentiable(looked, fed)
        ctx.set_materialize_grads(False)
        # Detached: an output that is itself in ctx would hold on to the whole graph in a circle.
        return saved.outputs.to(real).detach(), contexts, looked, fed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        with torch.autocast(ctx.looked.device.type, enabled=False):  # its own types throughout
            return (None, None, None, *_backward(ctx, grads))


def _backward(ctx: Any, grads: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    """Every step in reverse order, then the gradients of all weights; see `unroll`."""
    ctx.kernel.begin_backward()
    saved, kernel, real = ctx.saved, ctx.kernel, ctx.looked.dtype
    steps, batch, width = saved.outputs.shape
    layers, context_width = len(saved.gates), ctx.attention.context_width
    outputs = _or_zeros(grads[0], (steps, batch, width), ctx.looked)
    d_contexts = _or_zeros(grads[1], (steps, batch, context_width), ctx.looked).clone()
    factors = [_Factors(saved, n) for n in range(layers)]
    d_gates = [torch.zeros_like(g, dtype=ctx.ask.dtype) for g in saved.gates]
    d_queries = torch.zeros_like(ctx.queries)
    d_energies = torch.zeros_like(ctx.looked)
    d_past = None if ctx.pasts is None else torch.zeros_like(ctx.pasts[0])
    spelled = [(i, n) for i, n in enumerate(ctx.loop.active) if n > 0]
    for i, n in reversed(spelled):
        past, later = (None, None) if d_past is None else (ctx.pasts[i, :n], d_past[:n])
        d_queries[i, :n], d_earlier, d_energies[i, :n] = kernel.backward(
            ctx.looked[i, :n], d_contexts[i, :n], later, ctx.queries[i, :n], past
        )
        if d_past is not None:  # step i's past is the earlier steps' weights, or their last
            d_past[:n] = d_earlier if ctx.attention.past == "last" else d_past[:n] + d_earlier
        d_output = torch.mm(d_queries[i, :n], ctx.ask).to(real) + outputs[i, :n]
        for k in reversed(range(layers)):
            if ctx.loop.masks is not None:
                d_output = d_output * ctx.loop.masks[i, k, :n]
            d_input = factors[k].step(i, d_output, d_gates[k], ctx.weights[k])
            if k > 0:
                d_output = d_input.to(real)
            elif i > 0:
                d_contexts[i - 1, :n] += d_input
    return _parameter_gradients(ctx, d_contexts, d_queries, d_energies, d_gates)


def _parameter_gradients(
    ctx: Any, d_contexts: Tensor, d_queries: Tensor, d_energies: Tensor, d_gates: list[Tensor]
) -> tuple[Tensor, ...]:
    """Gradients of keys, values, table, query and all weights: one product each over all steps."""
    kernel: Kernel = ctx.kernel
    saved, real = ctx.saved, ctx.looked.dtype
    keys_type, values_type, table_type = ctx.types
    d_keys, *d_learned = kernel.learned_gradients(ctx.queries.to(real), d_energies)
    d_values = kernel.value_gradient(ctx.looked, d_contexts)
    flat = [g.flatten(0, 1) for g in d_gates]
    d_weights = [g.t() @ x[:-1].flatten(0, 1) for g, x in zip(flat, saved.inputs, strict=True)]
    d_table = torch.zeros(ctx.vocabulary, flat[0].shape[1], dtype=real, device=flat[0].device)
    d_table.index_add_(0, ctx.fed.flatten(), flat[0].to(real))
    d_ask = d_queries.flatten(0, 1).t() @ saved.outputs.flatten(0, 1)
    above: list[Tensor] = []
    for weight, gates in zip(d_weights[1:], flat[1:], strict=True):
        above += [weight.to(real), gates.sum(0, dtype=real)]
    return (
        d_keys.to(keys_type),
        d_values.to(values_type),
        d_table.to(table_type),
        d_ask.to(real),
        d_weights[0].to(real),
        *above,
        *d_learned,
    )


def _cell(saved: _Saved, k: int, i: int, n: int, weight: Tensor, bias: Tensor) -> None:
    """Step i of cell k for the first n sentences: gates, memory and state, all in place."""
    gates, width = saved.gates[k][i, :n], saved.outputs.shape[2]
    product = torch.mm(saved.inputs[k][i, :n], weight.t())
    torch.add(product, bias, out=gates)
    gates[:, : 3 * width].sigmoid_()
    candidate = gates[:, 3 * width :].tanh_()
    write, keep, show = gates[:, : 3 * width].chunk(3, 1)
    memory = saved.cells[k][i + 1, :n]
    torch.mul(keep, saved.cells[k][i, :n], out=memory)
    memory.addcmul_(write, candidate)
    torch.tanh(memory, out=saved.tanhs[k][i, :n])
    saved.inputs[k][i + 1, :n, -width:] = show * saved.tanhs[k][i, :n]


class _Factors:
    """Backward of one cell: all that does not depend on later steps, for all steps at once.

    With dh the gradient of the state and dc that of the memory, dc += dh * through; the gates'
    gradients are dc * ratio (input, forget, candidate) and dh * show (output).
    """

    def __init__(self, saved: _Saved, k: int) -> None:
        gates, tanh = saved.gates[k], saved.tanhs[k]
        steps, batch, width = tanh.shape
        write, keep, show, candidate = gates.view(steps, batch, 4, width).unbind(2)
        self.keep = keep
        self.through = torch.addcmul(show, show * tanh, tanh, value=-1)
        self.show = tanh * show * (1 - show)
        self.ratio = torch.zeros_like(gates).view(steps, batch, 4, width)
        self.ratio[:, :, 0] = candidate * write * (1 - write)
        self.ratio[:, :, 1] = saved.cells[k][:-1] * keep * (1 - keep)
        self.ratio[:, :, 3] = write * (1 - candidate.square())
        self.d_memory = torch.zeros_like(tanh[0])
        self.d_state = torch.zeros_like(tanh[0])

    def step(self, i: int, d_output: Tensor, d_gates: Tensor, weight: Tensor) -> Tensor:
        """Step i of the first N sentences: fills d_gates[i]; gives the input's gradient (N, I)."""
        n, width = d_output.shape
        d_state = d_output + self.d_state[:n]
        d_memory = self.d_memory[:n]
        d_memory.addcmul_(d_state, self.through[i, :n])
        gradient = d_memory[:, None] * self.ratio[i, :n]
        torch.mul(d_state, self.show[i, :n], out=gradient[:, 2])
        d_gates[i, :n] = gradient.flatten(1)
        d_inputs = torch.mm(d_gates[i, :n], weight)
        self.d_state[:n] = d_inputs[:, -width:]
        d_memory.mul_(self.keep[i, :n])
        return d_inputs[:, :-width]


def _or_zeros(gradient: Tensor | None, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """A gradient in the type of `like`, or zeros where nothing asked for one."""
    return like.new_zeros(shape) if gradient is None else gradient.to(like.dtype)
