"""Whether `batching.frames: auto` finds a budget within a real and narrow limit.

    python benchmarks/frame_budget.py [--tries 10] [--room 128] [--json]

Each try is a process of its own, which searches for the largest batches of 400 frames that fit into
so many MiB more than it holds beforehand. Says what each found, its highest memory as a share of
the limit, and how many processes were killed: where nothing is left, oneDNN may write to memory
that was refused it. Ends with status 1 if one was.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = """
name: budget
data: {kind: arrays, root: /nowhere}
frontend: {kind: arrays, width: 4}
batching: {utterances: 400}
listener: {blocks: [{kind: conv, widths: [256, 256], stride: 2}]}
attention: {kind: dot, width: 16}
speller: {embedding: 8, width: 16}
training: {device: cpu}
"""
FRAMES, SYMBOLS, VOCABULARY = 400, 20, 31


def search(page: Path, room: int) -> dict[str, float]:
    """What a search finds, in this process."""
    import torch

    from spelldown.recipe import estimate
    from spelldown.recipe.parts import build_recognizer
    from spelldown.recipe.recipe import read_recipe
    from spelldown.training.memory import keep_freed_memory, peak_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    recognizer = build_recognizer(read_recipe(page), VOCABULARY)
    warm = estimate._Measured(read_recipe(page), recognizer, torch.device("cpu"))
    warm.run(2, 90, 9)  # libraries are read into memory
    limit = (peak_memory() or 0) + room * 2**20
    recipe = read_recipe(page, [f"training.memory={limit >> 20}MiB"])
    found = estimate.frame_budget(recipe, recognizer, [(FRAMES, SYMBOLS)])
    return {"frames": found, "of the limit": round((peak_memory() or 0) / limit, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=10)
    parser.add_argument("--room", type=int, default=128, metavar="MIB")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--page", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.page is not None:
        print(json.dumps(search(asked.page, asked.room)))
        return
    found, killed, failed = [], 0, []
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.yaml"
        page.write_text(PAGE, encoding="utf-8")
        words = [sys.executable, __file__, "--page", str(page), "--room", str(asked.room)]
        for _ in range(asked.tries):
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode < 0:
                killed += 1
            elif done.returncode:
                failed.append(done.stderr.strip().splitlines()[-1])
            else:
                found.append(json.loads(done.stdout))
    told = {"tries": asked.tries, "killed": killed, "failed": failed, "found": found}
    print(json.dumps(told) if asked.json else "\n".join(f"{k}: {v}" for k, v in told.items()))
    sys.exit(1 if killed or failed else 0)


if __name__ == "__main__":
    main()
