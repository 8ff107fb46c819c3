"""How many hypotheses fit into memory, so that a beam too wide is told of and not killed."""

from pathlib import Path

import torch
from torch import Tensor

from spelldown.errors import SearchError

SHARE = 0.8  # of the free memory that search may take
PASSES = 4  # tensors as large as the listener's output that a hypothesis takes in one step


def utterances_at_once(frames: Tensor, hypotheses: int, vocabulary: int) -> int:
    """How many utterances of listener frames (B, T, D) can be searched together, at least 1.

    hypotheses: of each utterance. Raises SearchError, saying how many fit, if not even one can be.
    """
    each = hypothesis_bytes(frames.shape[1], frames.shape[2], vocabulary)
    room = int(SHARE * free_bytes(frames.device))
    fit = room // each
    if fit < hypotheses:
        raise SearchError(
            f"{hypotheses} hypotheses of an utterance of {frames.shape[1]} listener frames take "
            f"about {hypotheses * each / 2**30:.1f} GiB, and {room / 2**30:.1f} GiB may be "
            f"taken: at most {fit} fit"
        )
    return max(fit // hypotheses, 1)


def hypothesis_bytes(frames: int, width: int, vocabulary: int) -> int:
    """About how much one hypothesis takes at the height of a step, mostly attention's energies."""
    return 4 * PASSES * frames * width + 8 * 8 * vocabulary


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken on a device; on a computer that does not tell, 4 GiB."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        told = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return 4 * 2**30
    lines = dict(line.split(":", 1) for line in told.splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024
