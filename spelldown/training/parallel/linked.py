"""Ranks that torchrun started: what they tell one another, by gloo, and by NCCL between GPUs."""

import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from spelldown.errors import LostRankError, TrainingError
from spelldown.training.parallel.ranks import Ranks

Thing = TypeVar("Thing")
LONGEST_SILENCE = timedelta(hours=24)
"""A rank that ends is noticed at once; one that reads a large corpus for the first time is only
waited for."""
FAILED = 1


class Linked(Ranks):
    """One of several ranks. Use `joined`.

    Whatever is told goes through gloo, on processors; gradients on GPUs are summed by NCCL. Raises
    LostRankError wherever another rank turns out to be gone.
    """

    def __init__(self) -> None:
        with _noticing():
            store, rank, count = next(rendezvous("env://", timeout=LONGEST_SILENCE))
            # Where processes are started again, their meeting place still has the addresses of
            # those before them.
            store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
            dist.init_process_group(
                "gloo", store=store, rank=rank, world_size=count, timeout=LONGEST_SILENCE
            )
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self.local = int(os.environ.get("LOCAL_RANK", "0"))
        self.launch = launch_of(os.environ)
        self.restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
        self.gradients: Any = None  # gloo's own group
        self.tellings = 0

    def device_name(self, name: str) -> str:
        if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
            return "cpu"
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if name.startswith("cuda:"):
            raise TrainingError(
                f"training.device: {name} would be shared by {here} processes; cuda gives each "
                "its own"
            )
        gpus = torch.cuda.device_count()
        if here > gpus > 0:
            raise TrainingError(
                f"{here} processes on this machine and {gpus} GPUs; each needs its own: "
                f"torchrun --nproc-per-node {gpus}, or training.device=cpu"
            )
        return f"cuda:{self.local}"

    def use(self, device: torch.device) -> None:
        kinds = self.everyones(device.type)
        if len(set(kinds)) > 1:
            raise TrainingError(
                f"training.device: the processes are on {', '.join(kinds)}; they must be alike: "
                "set training.device"
            )
        super().use(device)
        if device.type == "cuda":
            self.gradients = dist.new_group(backend="nccl")

    def any(self, wished: bool) -> bool:
        return self.totals(int(wished))[0] > 0

    def totals(self, *numbers: int) -> list[int]:
        return [int(total) for total in self._sum(torch.tensor(numbers)).tolist()]

    def added(self, numbers: Tensor) -> Tensor:
        return self._sum(numbers.cpu()).to(numbers.device)

    def add_gradients(self, weights: Sequence[Tensor]) -> None:
        if not weights:
            return
        had = torch.tensor([weight.grad is not None for weight in weights])
        have = self._sum(had.int()).bool().tolist()
        learning = [weight for weight, some in zip(weights, have, strict=True) if some]
        if not learning:
            return
        parts = [_flat_gradient(weight) for weight in learning]
        flat = torch.cat(parts)
        del parts
        with _noticing():
            dist.all_reduce(flat, group=self.gradients)
        sizes = [weight.numel() for weight in learning]
        for weight, total in zip(learning, flat.split(sizes), strict=True):
            weight.grad = total.view_as(weight)

    def average(self, tensors: Sequence[Tensor]) -> None:
        if tensors:
            mean = self.added(torch.cat([tensor.reshape(-1) for tensor in tensors])) / self.count
            sizes = [tensor.numel() for tensor in tensors]
            for tensor, value in zip(tensors, mean.split(sizes), strict=True):
                tensor.copy_(value.view_as(tensor))

    def align(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            here = tensor.detach().cpu().contiguous()
            with _noticing():
                dist.broadcast(here, 0)
            with torch.no_grad():
                tensor.copy_(here)

    def everyones(self, own: Thing) -> list[Thing]:
        found: list[Any] = [None] * self.count
        with _noticing():
            dist.all_gather_object(found, own)
        return found

    @contextmanager
    def leading(self) -> Iterator[Callable[[object], None]]:
        before = self.tellings  # whoever leads within may have told already what is wrong

        def tell(what: object, well: bool = True) -> None:
            self.tellings += 1
            with _noticing():
                dist.broadcast_object_list([well, what], 0)

        try:
            yield tell
        except BaseException:
            if self.tellings == before:
                with suppress(LostRankError):
                    tell(None, well=False)
            raise

    def hear(self) -> Any:
        found: list[Any] = [None, None]
        with _noticing():
            dist.broadcast_object_list(found, 0)
        well, what = found
        if not well:
            raise SystemExit(FAILED)  # the first rank says what is wrong
        return what

    def _sum(self, numbers: Tensor) -> Tensor:
        total = numbers.clone()
        with _noticing():
            dist.all_reduce(total)
        return total


def _flat_gradient(weight: Tensor) -> Tensor:
    if weight.grad is None:  # this rank had nothing to learn from, others had
        return torch.zeros_like(weight).reshape(-1)
    return weight.grad.reshape(-1)


@contextmanager
def _noticing() -> Iterator[None]:
    """Raises LostRankError where a rank turns out to be gone."""
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        first = (str(error).splitlines() or [""])[0].rpartition("] ")[2][:100]
        raise LostRankError(
            f"another process of this training is gone or cannot be reached ({first}). torchrun "
            "--max-restarts 3 goes on from the last checkpoint by itself; or start torchrun again "
            "with: train --resume RUN"
        ) from error


@contextmanager
def joined() -> Iterator[Ranks]:
    """This process among those that torchrun started with it; alone if it started none."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "MASTER_ADDR" not in os.environ:
        yield Ranks()
        return
    ranks = Linked()
    try:
        yield ranks
    finally:
        with suppress(Exception):  # the others may be gone already
            dist.destroy_process_group()


def launch_of(environment: "os._Environ[str] | dict[str, str]") -> str:
    """A name for one call of torchrun, the same after its restarts and unlike any other's.

    Calls without an id of their own are told apart by the process that watches over this one.
    """
    name = environment.get("TORCHELASTIC_RUN_ID", "none")
    if name not in ("", "none"):
        return name
    agent, began = os.getppid(), ""
    with suppress(OSError, IndexError):
        stat = Path(f"/proc/{agent}/stat").read_text(encoding="ascii", errors="replace")
        began = stat.rsplit(")", 1)[1].split()[19]  # in the system's ticks since it was started
    return f"{platform.node()}-{agent}-{began}"
