"""An n-gram model that answers for many texts at once, on any device, without waiting for it.

It is a machine of *nodes*: each is what the model needs to remember of a text, the longest of its
endings that something was seen to follow. A node has an arc for every symbol seen after it, a
backoff, and the node to fall back to, which remembers one symbol less. What follows a node are
its arcs, and for all other symbols what follows the node it falls back to, times its backoff.

Nodes are numbered from the shortest memory on. The first of them, as many as fit into `TABLE`
bytes and usually all, have their whole row laid down: the logarithm of probability of every symbol,
and the node it leads to, so that a step is two look-ups. Longer memories fall back, step by step,
to one that has a row, and lay their own arcs over it.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor
from torch.nn import functional

from spelldown.errors import LanguageModelError
from spelldown.search.language.arpa import read_arpa
from spelldown.search.language.nodes import Nodes, nodes_of
from spelldown.writing import write_whole

ARPA, NODES = "model.arpa", "nodes.safetensors"  # in a language model's folder
TABLE = 1 << 28  # bytes of rows, on each device that the model is used on
CHUNK = 1 << 16  # nodes laid down at once
SHOWN = 8  # symbols named
LACKING = "each is as likely as <unk>, and never written where the file has none"


@dataclass(frozen=True)
class NGramState:
    """The node (N,) that each of N texts is at."""

    nodes: Tensor

    def select(self, rows: Tensor) -> "NGramState":
        return NGramState(self.nodes[rows])


class NGram:
    """An n-gram language model; see `LanguageModel` for what it is asked.

    table: bytes that rows may take on each device it is used on. missing: says which symbols it
    knows nothing of; empty if there are none.
    """

    def __init__(
        self,
        nodes: Nodes,
        symbols: Sequence[str],
        order: int,
        table: int = TABLE,
        missing: str = "",
    ) -> None:
        self.symbols, self.order, self.missing = tuple(symbols), order, missing
        self._nodes, self._table = nodes, table
        self._machines: dict[torch.device, _Machine] = {}

    @classmethod
    def read(cls, path: Path, symbols: Sequence[str]) -> "NGram":
        """The model of an ARPA file over a vocabulary's symbols. Raises what `read_arpa` does."""
        arpa = read_arpa(path, symbols)
        missing = f"{path} lacks {_listed(arpa.missing)}: {LACKING}" if arpa.missing else ""
        return cls(nodes_of(arpa), symbols, len(arpa.orders), missing=missing)

    @classmethod
    def of_folder(cls, folder: Path, symbols: Sequence[str]) -> "NGram":
        """The model of a folder that `spelldown train-lm` made, over its symbols.

        Its nodes are kept there, and read in no time unless the ARPA file has been changed since.
        Raises LanguageModelError as `read_arpa` does, and for a file that lacks some of them.
        """
        arpa, kept = folder / ARPA, folder / NODES
        with (
            suppress(OSError, SafetensorError, KeyError, TypeError),
            safe_open(kept, "numpy") as file,
        ):
            about = file.metadata() or {}
            if about["arpa"] == _digest(arpa):
                names = [field.name for field in fields(Nodes)]
                nodes = Nodes(**{name: file.get_tensor(name) for name in names})
                return cls(nodes, symbols, int(about["order"]))
        model = cls.read(arpa, symbols)
        if model.missing:
            told = model.missing.removesuffix(f": {LACKING}")
            raise LanguageModelError(
                f"{told}, which the language model of its folder had: make it anew by `spelldown "
                "train-lm`, or name the ARPA file itself"
            )
        return model

    def keep_nodes(self, folder: Path) -> None:
        """Writes the nodes beside the ARPA file that they were made from."""
        about = {"arpa": _digest(folder / ARPA), "order": str(self.order)}
        write_whole(folder / NODES, save(asdict(self._nodes), about))

    def start(self, rows: int, device: torch.device) -> NGramState:
        """The state of `rows` texts before `<sos>`."""
        return NGramState(torch.zeros(rows, dtype=torch.int64, device=device))

    def step(self, symbols: Tensor, state: NGramState) -> tuple[Tensor, NGramState]:
        """Log-probabilities (N, V) of what follows `symbols` (N,), and the new state."""
        machine = self._machine(symbols.device)
        nodes = machine.follow(state.nodes, symbols)
        return machine.rows(nodes), NGramState(nodes)

    def _machine(self, device: torch.device) -> "_Machine":
        if device not in self._machines:
            self._machines[device] = _Machine(self._nodes, len(self.symbols), self._table, device)
        return self._machines[device]


def _listed(symbols: Sequence[str]) -> str:
    some = ", ".join(map(repr, symbols[:SHOWN])) + (", ..." if len(symbols) > SHOWN else "")
    return f"{len(symbols)} of the recognizer's symbols ({some})"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


class _Machine:
    """The nodes on a device. No step asks the device for anything it would have to wait for."""

    def __init__(self, nodes: Nodes, vocabulary: int, table: int, device: torch.device) -> None:
        laid = min(max(table // (8 * vocabulary), 1), len(nodes.backoffs))
        rows, leads = _laid_down(nodes, laid, vocabulary)
        self.laid = laid
        self.log_probs, self.leads = rows.to(device), leads.to(device)
        self.falls = _falls(nodes, laid)
        if self.falls:
            self.widest = int(np.diff(nodes.arcs[laid:]).max())
            self.arcs = torch.from_numpy(nodes.arcs).to(device)
            self.arc_symbols = torch.from_numpy(nodes.symbols).to(device)
            self.arc_log_probs = torch.from_numpy(nodes.log_probs).to(device)
            self.arc_leads = torch.from_numpy(nodes.leads_to).to(device)
            self.backoffs = torch.from_numpy(nodes.backoffs).to(device)
            self.falls_to = torch.from_numpy(nodes.falls_to).to(device)

    def follow(self, nodes: Tensor, symbols: Tensor) -> Tensor:
        """The nodes (N,) after these symbols."""
        found = torch.full_like(nodes, -1)
        for _ in range(self.falls):
            without_row = nodes >= self.laid
            arc, there = self._arc(nodes, symbols)
            there &= without_row & (found < 0)
            found = torch.where(there, self.arc_leads[arc].long(), found)
            nodes = torch.where(without_row, self.falls_to[nodes].long(), nodes)
        return torch.where(found < 0, self.leads[nodes, symbols].long(), found)

    def _arc(self, nodes: Tensor, symbols: Tensor) -> tuple[Tensor, Tensor]:
        """The arc (N,) of each node for its symbol, by bisection, and whether there is one."""
        low, end = self.arcs[nodes], self.arcs[nodes + 1]
        high, last = end, len(self.arc_symbols) - 1
        for _ in range(self.widest.bit_length()):
            middle = (low + high) // 2
            before = (self.arc_symbols[middle.clamp(max=last)] < symbols) & (low < high)
            low = torch.where(before, middle + 1, low)
            high = torch.where(before, high, middle)
        arc = low.clamp(max=last)
        return arc, (low < end) & (self.arc_symbols[arc] == symbols)

    def rows(self, nodes: Tensor) -> Tensor:
        """The log-probabilities (N, V) of what follows the nodes."""
        fallen = []
        for _ in range(self.falls):
            fallen.append(nodes)
            nodes = torch.where(nodes >= self.laid, self.falls_to[nodes].long(), nodes)
        rows = self.log_probs[nodes]
        for longer in reversed(fallen):
            rows = self._over(rows, longer)
        return rows

    def _over(self, rows: Tensor, nodes: Tensor) -> Tensor:
        """Rows of what the nodes fall back to, with their own backoff and arcs laid over them.

        Nodes that have a row of their own leave it as it is.
        """
        without_row = nodes >= self.laid
        rows = rows + torch.where(without_row, self.backoffs[nodes], 0.0)[:, None]
        places = torch.arange(self.widest, device=nodes.device)
        arcs = self.arcs[nodes][:, None] + places
        there = (arcs < self.arcs[nodes + 1][:, None]) & without_row[:, None]
        arcs = arcs.clamp(max=len(self.arc_symbols) - 1)
        # What is not there goes into a column beside the vocabulary.
        width = rows.shape[1]
        symbols = torch.where(there, self.arc_symbols[arcs].long(), width)
        wider = functional.pad(rows, (0, 1))
        return wider.scatter(1, symbols, self.arc_log_probs[arcs])[:, :width]


def _laid_down(nodes: Nodes, laid: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Whole rows (laid, V) of the first nodes: log-probabilities, and the nodes led to."""
    rows = np.empty((laid, vocabulary), np.float32)
    leads = np.empty((laid, vocabulary), np.int32)
    start = 0
    while start < laid:
        stop = min(laid, start + CHUNK)
        if start:
            # As far as everything falls back to rows that are there already.
            ahead = nodes.falls_to[start:stop] >= start
            stop = start + int(ahead.argmax()) if ahead.any() else stop
            below = nodes.falls_to[start:stop]
            rows[start:stop] = rows[below] + nodes.backoffs[start:stop, None]
            leads[start:stop] = leads[below]
        else:
            stop = 1  # all of its arcs are there
        arcs = slice(nodes.arcs[start], nodes.arcs[stop])
        owners = np.repeat(np.arange(start, stop), np.diff(nodes.arcs[start : stop + 1]))
        rows[owners, nodes.symbols[arcs]] = nodes.log_probs[arcs]
        leads[owners, nodes.symbols[arcs]] = nodes.leads_to[arcs]
        start = stop
    return torch.from_numpy(rows), torch.from_numpy(leads)


def _falls(nodes: Nodes, laid: int) -> int:
    """How often a node must fall back at most until it has a row."""
    falls, here = 0, np.arange(laid, len(nodes.backoffs), dtype=np.int32)
    while len(here):
        falls += 1
        here = nodes.falls_to[here]
        here = here[here >= laid]
    return falls
