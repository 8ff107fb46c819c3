"""How many hypotheses fit into memory, so that a beam too wide is told of and not killed."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from spelldown.errors import SearchError

SHARE = 0.8  # of the free memory that search may take
PASSES = 4  # tensors as large as the listener's output that a hypothesis takes in one step
NOTED = 128  # bytes that are noted of a hypothesis at every step
CTC_TABLES, CTC_ROWS = 4, 12  # numbers of float64 for CTC: a frame and symbol; a hypothesis's frame
UNTOLD = 4 << 30


def utterances_at_once(
    frames: Tensor,
    hypotheses: int,
    vocabulary: int,
    *,
    steps: int = 0,
    heads: int = 0,
    ctc: bool = False,
) -> int:
    """How many utterances of listener frames (B, T, D) can be searched together, at least 1.

    hypotheses: of each utterance; steps: the most that they may take; heads: whose attention is
    kept at every step, 0 if it is not; ctc: whether the CTC head judges them. Raises SearchError,
    saying how many fit, if not even one can be.
    """
    _, length, width = frames.shape
    each = hypothesis_bytes(length, width, vocabulary, steps=steps, heads=heads, ctc=ctc)
    once = 8 * CTC_TABLES * length * vocabulary if ctc else 0
    room = int(SHARE * free_bytes(frames.device))
    fit = max(room - once, 0) // each
    if fit < hypotheses:
        need = once + hypotheses * each
        kept = f" and their attention in up to {steps} steps (search.longest)" if heads else ""
        raise SearchError(
            f"{hypotheses} hypotheses of an utterance of {length} listener frames{kept} take "
            f"about {need / 2**30:.1f} GiB, and {room / 2**30:.1f} GiB may be taken: "
            + (f"at most {fit} fit" if fit else "not even one fits")
        )
    return max(room // (once + hypotheses * each), 1)


def hypothesis_bytes(
    frames: int, width: int, vocabulary: int, *, steps: int = 0, heads: int = 0, ctc: bool = False
) -> int:
    """About how much one hypothesis takes at most: attention's energies at the height of a step,
    what is noted of every step, attention itself where it is kept (twice, while hypotheses are
    put together), and what the CTC head knows of it."""
    step = 4 * PASSES * frames * width + 8 * 8 * vocabulary
    kept = steps * (NOTED + 2 * 4 * heads * frames)
    return step + kept + (8 * CTC_ROWS * frames if ctc else 0)


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken on a device; on a computer that does not tell, 4 GiB."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    left = left_on_computer()
    return UNTOLD if left is None else left


def left_on_computer() -> int | None:
    """Bytes that can still be taken beside the processor: what the computer has left, and what
    every control group of this process has (a container's, or a cluster job's), the least of them.
    None where the system does not tell."""
    root = Path("/")
    return min([*_available(root), *left_in_groups(root)], default=None)


def _available(root: Path) -> Iterator[int]:
    told = _lines(root / "proc/meminfo")
    yield from (int(line.split()[1]) * 1024 for line in told if line.startswith("MemAvailable:"))


def left_in_groups(root: Path) -> Iterator[int]:
    """What each control group with a limit leaves, of those that this process is in (Linux, of
    both versions); file pages that can be given back are not counted as taken."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            mount = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        else:
            continue
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(mount):
                yield from _left_in(folder, *names)


def _left_in(folder: Path, limit: str, taken: str, prefix: str) -> Iterator[int]:
    files = [
        int(line.split()[1])
        for line in _lines(folder / "memory.stat")
        if line.startswith(f"{prefix}inactive_file ")
    ]
    with suppress(IndexError, ValueError):  # not there, or `max`: no limit
        most, held = (int(_lines(folder / name)[0]) for name in (limit, taken))
        yield max(most - held + sum(files), 0)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
