"""How much faster ours trains than the textbook: the seed's row 6, same batches, one run.

    python benchmarks/training_speed.py [--device cuda] [--threads 2] [--rounds 3] [--json]

Both start from the same weights and are first held to the same loss and gradients (dropout off);
then they are timed in turn, forward, backward and update, with the row's dropout on. A round is
one batch through ours and the textbook in each precision; what is reported is the median
round, so that a busy moment of the machine does not decide. `share_of_peak` is the part of the
machine's measured matrix-product speed that our useful products reach (those on real frames).
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from textbook import TextbookRecognizer
from torch import Tensor, nn
from torch.nn import functional

from spelldown.data.vocabulary import COURSE
from spelldown.model.listening.block import Block
from spelldown.model.precision import Precision, autocast, resolve_precision
from spelldown.model.recognizer import Recognizer
from spelldown.recipe.parts import build_recognizer
from spelldown.recipe.recipe import read_recipe
from spelldown.training.memory import keep_freed_memory

ROW = Path(__file__).parent.parent / "recipes" / "seed" / "row6.yaml"
UTTERANCES, FRAMES, LETTERS, SHORTEST = 32, 1240, 185, 0.3
# Equal results: relative difference of the loss, and one minus the cosine of the gradients.
TOLERANCES = {"float32": (1e-4, 1e-4), "bfloat16": (1e-2, 2e-2)}


def row6() -> Recognizer:
    """The model of the seed's sixth row, as its recipe has it."""
    return build_recognizer(read_recipe(ROW), len(COURSE)).train()


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """32 utterances, lengths spread evenly from 30 to 100 % of 1,240 frames and 185 letters."""
    spread = torch.linspace(1, SHORTEST, UTTERANCES)
    lengths, letters = (spread * FRAMES).long(), (spread * LETTERS).long()
    frames = torch.randn(UTTERANCES, FRAMES, 28)
    frames[torch.arange(FRAMES)[None] >= lengths[:, None]] = 0
    symbols = torch.randint(3, 31, (UTTERANCES, LETTERS + 1))
    symbols[:, 0] = 1
    symbols[torch.arange(LETTERS + 1)[None] > letters[:, None]] = 0
    return frames, lengths, symbols


def loss_of(logits: Tensor, symbols: Tensor) -> Tensor:
    """Cross entropy a symbol, padding left out."""
    return functional.cross_entropy(
        logits.flatten(0, 1).float(), symbols[:, 1:].flatten(), ignore_index=0
    )


def ours_step(model: Recognizer, precision: Precision, data: tuple[Tensor, ...]) -> Tensor:
    """Loss and gradients of ours."""
    frames, lengths, symbols = data
    with autocast(frames.device, precision):
        logits = model(frames, lengths, symbols).logits
    loss = loss_of(logits, symbols)
    torch.autograd.backward(loss)
    return loss


def textbook_step(
    model: TextbookRecognizer, data: tuple[Tensor, ...], precision: Precision = "float32"
) -> Tensor:
    """Loss and gradients of the textbook."""
    with autocast(data[0].device, precision):
        logits = model(*data)
    loss = loss_of(logits, data[2])
    torch.autograd.backward(loss)
    return loss


def check_equal(precision: Precision, data: tuple[Tensor, ...]) -> dict[str, float]:
    """Holds ours to the textbook's loss and gradient on four utterances; raises if they differ."""
    torch.manual_seed(0)
    model = row6().to(data[0].device)
    book = TextbookRecognizer(copy.deepcopy(model)).to(data[0].device)
    for module in (*model.modules(), *book.modules()):
        for name in ("rate", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    model.speller.settings = model.speller.settings.model_copy(update={"dropout": 0.0})
    few = tuple(part[-4:] for part in data)
    shortest = (few[0][:, : int(few[1].max())], *few[1:])
    ours = ours_step(model, precision, shortest)
    mine = _gradients(model, "listener.blocks.0.layers.0.weight", "speller.embedding.weight")
    model.zero_grad()
    theirs = textbook_step(book, shortest)
    other = _gradients(book, "conv.layers.0.weight", "speller.embedding.weight")
    apart = abs(float(ours.detach() - theirs.detach())) / float(theirs.detach())
    turned = 1 - float(functional.cosine_similarity(mine, other, dim=0))
    allowed = TOLERANCES[precision]
    if apart > allowed[0] or turned > allowed[1]:
        raise SystemExit(f"{precision}: results differ: loss {apart:.1e}, gradient {turned:.1e}")
    return {"loss_difference": apart, "gradient_difference": turned}


def _gradients(model: nn.Module, *names: str) -> Tensor:
    """The gradients of these weights, in one row."""
    found = []
    for name in names:
        gradient = model.get_parameter(name).grad
        assert gradient is not None, name
        found.append(gradient.flatten())
    return torch.cat(found)


def products(model: Recognizer, data: tuple[Tensor, ...]) -> float:
    """Multiplications and additions of one training step that fall on real frames and letters.

    Backward does twice the work of forward.
    """
    _, lengths, symbols = data
    frames, letters = float(lengths.sum()), float((symbols != 0).sum())
    total = 0.0
    for block in model.listener.blocks:
        assert isinstance(block, Block)
        frames /= block.reduction
        weights = sum(p.numel() for p in block.parameters() if p.dim() > 1)
        total += frames * weights
    head = model.speller.attention
    total += frames * (head.key.weight.numel() + head.value.weight.numel())
    spelling: list[nn.Module] = [*model.speller.cells, model.speller.distribution, head.query]
    total += letters * sum(p.numel() for part in spelling for p in part.parameters() if p.dim() > 1)
    return 3 * 2 * total


def peak(dtype: torch.dtype, clock: Callable[[], float], device: torch.device) -> float:
    """The machine's matrix-product speed (operations a second of this clock) in this type."""
    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = min(_timed(lambda: torch.mm(a, b), clock, device) for _ in range(20))
    return 2.0 * size * size * size / best


def _timed(action: Callable[[], object], clock: Callable[[], float], device: torch.device) -> float:
    """From begin to end; a GPU is waited for."""
    start = clock()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def measure(
    rounds: int, clock: Callable[[], float], device: torch.device
) -> dict[str, dict[str, float]]:
    """Times both, interleaved; the figures of each precision."""
    torch.manual_seed(1)
    data = tuple(part.to(device) for part in batch())
    precisions: list[Precision] = ["float32"]
    if resolve_precision("auto", device) == "bfloat16":
        precisions.append("bfloat16")
    equal = {precision: check_equal(precision, data) for precision in precisions}
    model = row6().to(device)
    book = TextbookRecognizer(copy.deepcopy(model)).to(device)
    updates = {id(m): torch.optim.AdamW(m.parameters(), 1e-4) for m in (model, book)}

    def whole(module: nn.Module, step: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            step()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            updates[id(module)].step()
            updates[id(module)].zero_grad()

        return run

    runs: dict[str, Callable[[], None]] = {
        precision: whole(model, partial(ours_step, model, precision, data))
        for precision in precisions
    }
    for precision in precisions:
        runs[f"textbook {precision}"] = whole(book, partial(textbook_step, book, data, precision))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds + 1):
        for name, run in runs.items():
            seconds = _timed(run, clock, device)
            if i > 0:  # the first round warms up
                times[name].append(seconds)
    middle = {name: statistics.median(seconds) for name, seconds in times.items()}
    work = products(model, data)
    report: dict[str, dict[str, float]] = {}
    for precision in precisions:
        kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
        fastest = peak(kind, clock, device)
        report[precision] = {
            "ours_utterances_per_second": UTTERANCES / middle[precision],
            "textbook_utterances_per_second": UTTERANCES / middle["textbook float32"],
            "ratio": middle["textbook float32"] / middle[precision],
            "ratio_same_precision": middle[f"textbook {precision}"] / middle[precision],
            "share_of_peak": work / middle[precision] / fastest,
            "peak_gigaflops": fastest / 1e9,
            **equal[precision],
        }
    return report


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: where others use the machine"
    )
    options = parser.parse_args()
    keep_freed_memory()  # as training does; both sides gain by it
    torch.set_num_threads(options.threads)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    report = measure(options.rounds, clock, torch.device(options.device))
    if options.json:
        print(json.dumps(report, indent=2))
        return
    for precision, row in report.items():
        print(
            f"{precision:9s} ours {row['ours_utterances_per_second']:.2f} utterances/s, textbook "
            f"(float32) {row['textbook_utterances_per_second']:.2f}: {row['ratio']:.2f} times "
            f"({row['ratio_same_precision']:.2f} the textbook in {precision}); "
            f"{row['share_of_peak']:.0%} of {row['peak_gigaflops']:.0f} GFLOP/s; loss differs by "
            f"{row['loss_difference']:.1e}, gradient by {row['gradient_difference']:.1e}"
        )


if __name__ == "__main__":
    main()
