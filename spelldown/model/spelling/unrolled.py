"""The speller's loop over a whole reference, as one function of autograd.

What a step-by-step loop under autograd does hundreds of times over, small and slow, is done here
once and large: the embedding's share of the first cell is a table of one row a symbol; the
gradients of all weights are single products over all steps; the elementwise half of the LSTM's
backward is computed for all steps at once, so that the backward loop is left with one product a
cell and a step. Sentences come longest first, and a step spells only those that have not ended:
what is kept of all steps has N rows, one for each symbol spelled, step after step. No gradient
flows through a drawn symbol, so drawn feedback needs nothing more.

Gates stand in the order input, forget, output, candidate; L steps, B utterances, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spelldown.model.lengths import Real, mask_of
from spelldown.model.precision import product_dtype
from spelldown.model.spelling.attention import Attention
from spelldown.model.spelling.kernels import Kernel
from spelldown.model.spelling.products import Product
from spelldown.model.spelling.sharing import Projected

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

    @property
    def spelled(self) -> Real:
        """Which of (L, B) are spelled: the N rows, step after step."""
        active = torch.tensor(self.active, device=self.symbols.device)
        return Real(mask_of(active, self.symbols.shape[1]))

    def steps(self) -> list[tuple[int, int, int]]:
        """(step, first row, sentences) of every step that spells any."""
        starts = accumulate(self.active, initial=0)
        counted = zip(range(len(self.active)), starts, self.active, strict=False)
        return [step for step in counted if step[2] > 0]

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
    are skipped here. Gives the top cell's outputs (N, D) and contexts (N, C) in the rows of
    `loop.spelled`; weights (L, B, H, T), which carry no gradient and are zero where a sentence
    has ended; and the symbols that were fed (L, B).
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
    """What forward keeps for backward: rows of all steps, one entry a cell in lists.

    inputs (N, I + D) and cells (N, D) are what a step starts from. A step leaves state and memory
    in the rows of the next, past its own; where fewer sentences go on, what is too much lies in
    rows that later steps write before they read, or beyond N: hence B rows more.
    """

    def __init__(self, loop: Loop, inputs: list[int], width: int, like: Tensor) -> None:
        product, batch, rows = product_dtype(like), loop.symbols.shape[1], sum(loop.active)
        self.inputs = [like.new_empty(rows + batch, i + width, dtype=product) for i in inputs]
        self.cells = [like.new_empty(rows + batch, width) for _ in inputs]
        for start in (*self.inputs, *self.cells):
            start[:batch] = 0
        self.gates = [like.new_empty(rows, 4 * width) for _ in inputs]
        self.tanhs = [like.new_empty(rows, width) for _ in inputs]
        self.outputs = like.new_empty(rows, width, dtype=product)


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
        gates, asks = [Product(w) for w in weights], Product(ask)
        steps, batch = loop.symbols.shape
        width, context_width = first.shape[0] // 4, attention.context_width
        saved = _Saved(loop, [context_width] + [width] * (layers - 1), width, query)
        looked = query.new_zeros(steps, batch, *keys.shape[1:3])
        contexts = query.new_empty(len(saved.outputs), context_width)
        queries = query.new_zeros(steps, batch, len(query), dtype=product)
        pasts = torch.zeros_like(looked) if kernel.needs_past else None
        rows = table.to(real)
        fed = loop.symbols.clone()
        always = loop.forced.all(1).tolist()  # one transfer, not one a step
        before = 0  # where the last step's rows begin
        for i, start, n in loop.steps():
            now, then = slice(start, start + n), slice(start + n, start + 2 * n)
            if not always[i]:
                last = slice(before, before + n)
                logits = loop.logits(saved.outputs[last].to(real), contexts[last])
                own = loop.draw(i, logits)[1]
                fed[i, :n] = torch.where(loop.forced[i, :n], fed[i, :n], own)
            for k in range(layers):
                bias = rows[fed[i, :n]] if k == 0 else above[2 * k - 1]
                _cell(saved, k, now, then, gates[k], bias)
                output = saved.inputs[k][then, -width:]
                if loop.masks is not None:
                    output = output * loop.masks[i, k, :n]
                if k + 1 < layers:
                    saved.inputs[k + 1][now, :width] = output
            saved.outputs[now] = output
            asked = queries[i, :n] = asks(saved.outputs[now])
            past = None if pasts is None else pasts[i, :n]
            contexts[now], looked[i, :n] = kernel.attend(asked, past)
            saved.inputs[0][then, :context_width] = contexts[now]
            before = start
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
    spelled, width = saved.outputs.shape
    layers, context_width = len(saved.gates), ctx.attention.context_width
    outputs = _or_zeros(grads[0], (spelled, width), ctx.looked)
    d_contexts = _or_zeros(grads[1], (spelled, context_width), ctx.looked).clone()
    factors = [_Factors(saved, n) for n in range(layers)]
    gates_back, ask_back = [Product(w.t()) for w in ctx.weights], Product(ctx.ask.t())
    d_gates = [torch.empty_like(g, dtype=ctx.ask.dtype) for g in saved.gates]
    d_queries = ctx.queries.new_empty(spelled, ctx.queries.shape[2])
    d_energies = torch.zeros_like(ctx.looked)
    d_past = None if ctx.pasts is None else torch.zeros_like(ctx.pasts[0])
    for i, start, n in reversed(ctx.loop.steps()):
        now = slice(start, start + n)
        past, later = (None, None) if d_past is None else (ctx.pasts[i, :n], d_past[:n])
        d_queries[now], d_earlier, d_energies[i, :n] = kernel.backward(
            ctx.looked[i, :n], d_contexts[now], later, ctx.queries[i, :n], past
        )
        if d_past is not None:  # step i's past is the earlier steps' weights, or their last
            d_past[:n] = d_earlier if ctx.attention.past == "last" else d_past[:n] + d_earlier
        d_output = ask_back(d_queries[now]).to(real) + outputs[now]
        for k in reversed(range(layers)):
            if ctx.loop.masks is not None:
                d_output = d_output * ctx.loop.masks[i, k, :n]
            d_input = factors[k].step(now, d_output, d_gates[k], gates_back[k])
            if k > 0:
                d_output = d_input.to(real)
            elif i > 0:
                before = start - ctx.loop.active[i - 1]
                d_contexts[before : before + n] += d_input
    return _parameter_gradients(ctx, d_contexts, d_queries, d_energies, d_gates)


def _parameter_gradients(
    ctx: Any, d_contexts: Tensor, d_queries: Tensor, d_energies: Tensor, d_gates: list[Tensor]
) -> tuple[Tensor, ...]:
    """Gradients of keys, values, table, query and all weights: one product each over all steps."""
    kernel: Kernel = ctx.kernel
    saved, real = ctx.saved, ctx.looked.dtype
    keys_type, values_type, table_type = ctx.types
    d_keys, *d_learned = kernel.learned_gradients(ctx.queries.to(real), d_energies)
    spelled = ctx.loop.spelled
    d_values = kernel.value_gradient(ctx.looked, spelled.frames(d_contexts))
    d_weights = [g.t() @ x[: len(g)] for g, x in zip(d_gates, saved.inputs, strict=True)]
    d_table = d_contexts.new_zeros(ctx.vocabulary, d_gates[0].shape[1])
    d_table.index_add_(0, ctx.fed.flatten()[spelled.places], d_gates[0].to(real))
    d_ask = d_queries.t() @ saved.outputs
    above: list[Tensor] = []
    for weight, gates in zip(d_weights[1:], d_gates[1:], strict=True):
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


def _cell(saved: _Saved, k: int, now: slice, then: slice, weigh: Product, bias: Tensor) -> None:
    """One step of cell k, from the rows `now` to `then`: gates, memory and state, all in place."""
    gates, width = saved.gates[k][now], saved.outputs.shape[1]
    torch.add(weigh(saved.inputs[k][now]), bias, out=gates)
    gates[:, : 3 * width].sigmoid_()
    candidate = gates[:, 3 * width :].tanh_()
    write, keep, show = gates[:, : 3 * width].chunk(3, 1)
    memory, tanh = saved.cells[k][then], saved.tanhs[k][now]
    torch.mul(keep, saved.cells[k][now], out=memory)
    memory.addcmul_(write, candidate)
    torch.tanh(memory, out=tanh)
    torch.mul(show, tanh, out=saved.inputs[k][then, -width:])


class _Factors:
    """Backward of one cell: all that does not depend on later steps, for all steps at once.

    With dh the gradient of the state and dc that of the memory, dc += dh * through; the gates'
    gradients are dc * ratio (input, forget, candidate) and dh * show (output).
    """

    def __init__(self, saved: _Saved, k: int) -> None:
        gates, tanh = saved.gates[k], saved.tanhs[k]
        rows, width = tanh.shape
        write, keep, show, candidate = gates.view(rows, 4, width).unbind(1)
        self.keep = keep
        self.through = torch.addcmul(show, show * tanh, tanh, value=-1)
        self.show = tanh * show * (1 - show)
        self.ratio = torch.zeros_like(gates).view(rows, 4, width)
        self.ratio[:, 0] = candidate * write * (1 - write)
        self.ratio[:, 1] = saved.cells[k][:rows] * keep * (1 - keep)
        self.ratio[:, 3] = write * (1 - candidate.square())
        batch = len(saved.cells[k]) - rows
        self.d_memory = tanh.new_zeros(batch, width)
        self.d_state = tanh.new_zeros(batch, width)

    def step(self, now: slice, d_output: Tensor, d_gates: Tensor, weigh: Product) -> Tensor:
        """One step: fills the rows `now` of d_gates; gives the gradient of its inputs."""
        n, width = d_output.shape
        d_state = d_output + self.d_state[:n]
        d_memory = self.d_memory[:n]
        d_memory.addcmul_(d_state, self.through[now])
        gradient = d_memory[:, None] * self.ratio[now]
        torch.mul(d_state, self.show[now], out=gradient[:, 2])
        d_gates[now] = gradient.flatten(1)
        d_inputs = weigh(d_gates[now])
        self.d_state[:n] = d_inputs[:, -width:]
        d_memory.mul_(self.keep[now])
        return d_inputs[:, :-width]


def _or_zeros(gradient: Tensor | None, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """A gradient in the type of `like`, or zeros where nothing asked for one."""
    return like.new_zeros(shape) if gradient is None else gradient.to(like.dtype)
