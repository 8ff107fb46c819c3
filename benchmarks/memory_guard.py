"""The price of half the memory: updates of the seed's row 5 without a limit and under one.

    python benchmarks/memory_guard.py [--data DIR] [--updates 4] [--share 0.5] [--device cuda]

Makes updates of recipes/seed/row5.yaml on the largest batches of AN4 (13 cepstra), from the same
first weights, each time in a process of its own: once with all memory, which tells how much it
needs, then under `training.memory` of that share of it. Prints the highest resident memory of
both, the CPU time of all updates (tries that failed included), the loss of each, and how many tries
failed. On a GPU memory is what tensors held there, and time is the wall's. Losses are told for the
recipe as it is, where other units are dropped and batch norm hears the parts by themselves, and
(--plain: alone) without dropout, in float32 and with layer norm in its place, where they must be
equal.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PLAIN = ["listener.blocks.0.norm=layer", "listener.blocks.4.norm=layer",
         "listener.blocks.4.dropout=0", "speller.distribution_dropout=0",
         *(f"listener.blocks.{place}.dropout=0" for place in (1, 2, 3)),
         "training.precision=float32"]  # fmt: skip


def measure(asked: argparse.Namespace, plain: bool, memory: str | None) -> dict[str, Any]:
    """The updates, in this process."""
    import time

    import torch

    from spelldown.model.spelling.speller import Feedback
    from spelldown.recipe.parts import build_parts
    from spelldown.recipe.recipe import read_recipe
    from spelldown.training.guard.guard import Guard
    from spelldown.training.learning.optimizer import build_optimizer
    from spelldown.training.memory import (
        forget_peak,
        keep_freed_memory,
        peak_gpu_memory,
        peak_memory,
    )
    from spelldown.training.update import Manner, Updater, update_seed

    torch.set_num_threads(asked.threads)
    keep_freed_memory()  # as the trainer does
    changes = [f"data.root={asked.data}", "data.train=train", "data.dev=dev", "data.test=test",
               "frontend.width=13", "augment.frequency_masks.width=3"]  # fmt: skip
    recipe = read_recipe(ROOT / "recipes/seed/row5.yaml", changes + (PLAIN if plain else []))
    parts, device = build_parts(recipe), torch.device(asked.device)
    on_gpu = device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time

    def peak() -> int:
        return (peak_gpu_memory(device) if on_gpu else peak_memory()) or 0

    parts.recognizer.to(device)
    lengths, plan = parts.train._frames[1.0], parts.train.plan(1)
    sizes = [len(batch) * max(lengths[batch]) for batch in plan]
    order = sorted(range(len(plan)), key=lambda place: -sizes[place])[: asked.updates]
    batches = list(parts.train.epoch(1))
    guard = Guard(device, memory=memory)
    updater = Updater(
        parts.recognizer.train(),
        build_optimizer(parts.recognizer, recipe.optimizer),
        recipe.loss,
        recipe.optimizer.clip,
        recipe.training.precision,
        device,
        guard=guard,
    )
    forget_peak(device)
    held, losses, seconds = peak(), [], []
    with guard:
        for update, place in enumerate(order):
            guard.now(update)
            began = clock()
            manner = Manner(recipe.optimizer.rate, 0.0, Feedback(), 0.0, update_seed(1, update))
            told = updater.update([batches[place]], manner)
            seconds.append(clock() - began)
            losses.append(told.loss / told.symbols)
    lessons = [vars(lesson) for lesson in guard.fits.lessons]
    shapes = [list(batches[place].frames.shape[:2]) for place in order]
    return {"memory": memory, "held_before": held, "peak": peak(), "seconds": seconds,
            "losses": losses, "lessons": lessons, "shapes": shapes}  # fmt: skip


def apart(asked: argparse.Namespace, plain: bool, memory: str | None) -> dict[str, Any]:
    """The updates, in a process of their own."""
    command = [sys.executable, __file__, "--child", "--data", str(asked.data)]
    command += ["--updates", str(asked.updates), "--threads", str(asked.threads)]
    command += ["--device", asked.device]
    command += ["--plain"] * plain + (["--memory", memory] if memory else [])
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(told.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/an4")
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--share", type=float, default=0.5, help="of the memory that it needs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plain", action="store_true", help="the exact comparison alone")
    parser.add_argument("--json", action="store_true", help="one object, and nothing else")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(measure(asked, asked.plain, asked.memory), default=int))
        return
    found = {}
    for plain in [True] if asked.plain else [False, True]:
        free = apart(asked, plain, None)
        limit = f"{int(asked.share * free['peak'] / 1e6)}MB"
        found["plain" if plain else "as it is"] = free, apart(asked, plain, limit)
    if asked.json:
        print(json.dumps(found))
        return
    for name, (free, held) in found.items():
        off = [abs(a - b) for a, b in zip(free["losses"], held["losses"], strict=True)]
        print(f"row 5, {name}: batches (utterances, frames) {free['shapes']}")
        for told in (free, held):
            print(
                f"  {told['memory'] or 'no limit':>9}: at most {told['peak'] / 1e6:.0f} MB "
                f"({told['held_before'] / 1e6:.0f} before training), {sum(told['seconds']):.1f} "
                f"seconds ({', '.join(f'{s:.1f}' for s in told['seconds'])}), "
                f"{len(told['lessons'])} tries failed; loss a symbol "
                f"{', '.join(f'{loss:.5f}' for loss in told['losses'])}"
            )
        price = sum(held["seconds"]) / sum(free["seconds"])
        later = sum(held["seconds"][1:]) / max(sum(free["seconds"][1:]), 1e-9)
        print(f"  price in time {price:.2f} (after the first update {later:.2f}); "
              f"losses differ by at most {max(off):.2g}")  # fmt: skip


if __name__ == "__main__":
    main()
