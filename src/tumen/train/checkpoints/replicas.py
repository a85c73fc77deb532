"""Replicas of the state in memory, every few steps.

A dead node then costs the steps since the last replica, not since the last checkpoint.

    rank r --file--> memory of its node (TUMEN_REPLICA_FOLDER)
           --TCP, in the background--> memory of the next node (TUMEN_REPLICA_STORE)

A new attempt resumes from the newest step of which the nodes hold every rank's part, or from a
newer checkpoint. Each rank reads its part from its own node, or fetches it. So only the same number
of ranks can resume from memory. Their interval is measured: replicas take at most `SHARE` of the
time. A replica that fails never stops a training.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import threading
import time
from collections import defaultdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from tumen.core.errors import ArtifactError, EngineError, TumenError
from tumen.core.events import Events
from tumen.data import Loader
from tumen.formats import safetensors_header
from tumen.heartbeat import SECRET, Replica, address_of, read_secret, sender, transfer
from tumen.train.checkpoints.checkpoint import State
from tumen.train.single_process import Trainer
from tumen.train.world import World

# Environment of a rank: its node's folder, and the address of its node's replica store.
FOLDER = "TUMEN_REPLICA_FOLDER"
STORE = "TUMEN_REPLICA_STORE"
SHARE = 0.01  # of the time that replicas may take, their sending and storing included
WARM_STEPS = 3  # the first steps take longer than the others


class Replicas:
    """The replicas of this rank; without the agent's two variables it makes none.

    Args:
        world: the ranks that train.
        inputs: what the run is made for; replicas of other inputs are not used.
        events: rank 0's are logged.
    """

    def __init__(self, world: World, inputs: str, events: Events) -> None:
        self.world = world
        self.inputs = inputs
        self.events = events
        self.folder = Path(os.environ.get(FOLDER, ""))
        self.on = False
        self.every = 0
        self.why = ""  # why a replica could not be made
        self.unsent = ""  # why one could not be sent
        # Of each rank: its node's folder and replica store.
        self._nodes: list[tuple[str, str]] = []
        # (step, attempt) -> rank -> store of a node that has its part
        self._held: dict[tuple[int, int], dict[int, str]] = {}
        self._due = 0
        self._from = 0
        self._since = 0.0
        self._send_seconds = 0.0
        self._sending: threading.Thread | None = None

    # -- resuming

    def meet(self) -> int:
        """Exchange what the nodes hold.

        Returns:
            The newest step whose parts are all there, 0 for none; the same on every rank.
        """
        here = (os.environ.get(FOLDER, ""), os.environ.get(STORE, ""))
        own = self._here() if _first_on_node() and all(here) else []
        found: list[tuple[tuple[str, str], list[Replica]]] = self.world.gather((here, own))
        self._nodes = [node for node, _ in found]
        self.on = all(all(node) for node in self._nodes)
        held: dict[tuple[int, int], dict[int, str]] = defaultdict(dict)
        for (_, store), replicas in found:
            for copy in replicas:
                held[copy.step, copy.attempt][copy.rank] = store
        self._held = {key: parts for key, parts in held.items() if len(parts) == self.world.size}
        newest, _ = max(self._held, default=(0, 0))
        return newest

    def _here(self) -> list[Replica]:
        """Replicas of this run, for this many ranks, in this node's memory."""
        found = []
        for copy in transfer.replicas_in(self.folder):
            if copy.world != self.world.size:
                continue
            if about(self.folder / copy.name).get("inputs") == self.inputs:
                found.append(copy)
        return found

    @torch.no_grad()
    def restore(self, trainer: Trainer) -> State | None:
        """Fill the trainer from the newest step that all ranks can read; None if there is none."""
        for step, attempt in sorted(self._held, reverse=True):
            part: dict[str, Tensor] = {}
            why = ""
            try:
                copy = Replica(attempt, step, self.world.rank, self.world.size)
                part, state = self._part(trainer, copy)
            except (TumenError, SafetensorError, OSError, ValueError) as error:
                why = str(error)
            whys = [text for text in self.world.gather(why) if text]
            if whys:
                action = "the one before is used"
                self.events.emit("replica_damaged", step=step, error=whys[0], action=action)
                continue
            for name, tensor in trainer.tensors().items():
                local(tensor).copy_(part[name])
            trainer.restored(state.step)
            self._forget(step, attempt)
            return state
        return None

    def _part(self, trainer: Trainer, copy: Replica) -> tuple[dict[str, Tensor], State]:
        """This rank's part of a step, from its node or fetched from another."""
        path = self.folder / copy.name
        if not path.exists():
            store = self._held[copy.step, copy.attempt][copy.rank]
            transfer.fetch_replica(address_of(store), secret(), copy.name, self.folder)
        safetensors_header.check(path)
        part = load_file(path)
        held = {name: (tensor.shape, tensor.dtype) for name, tensor in part.items()}
        wanted = {}
        for name, tensor in trainer.tensors().items():
            wanted[name] = (local(tensor).shape, tensor.dtype)
        facts = about(path)
        if facts.get("inputs") != self.inputs or wanted != held:
            raise ArtifactError(f"{path}: is of another network; a checkpoint is used")
        return part, State(copy.step, json.loads(facts["loader"]))

    def _forget(self, step: int = 0, attempt: int = 0) -> None:
        """Delete this node's replicas of other steps, so that a later attempt cannot mix them."""
        if not _first_on_node():
            return
        for copy in transfer.replicas_in(self.folder):
            if (copy.step, copy.attempt) != (step, attempt):
                (self.folder / copy.name).unlink(missing_ok=True)

    # -- making replicas

    def begin(self, step: int, restored: bool) -> None:
        """Start after `step` steps, on every rank; `restored`: they came from a replica."""
        if self.on and not restored:
            self._forget()
        self._from = step
        self._since = time.perf_counter()
        self._due = step + WARM_STEPS

    def look(self, step: int, trainer: Trainer, loader: Loader) -> None:
        """Make a replica when it is due; call it after a step, on every rank."""
        if not self.on or step < self._due:
            return
        began = time.perf_counter()
        step_seconds = (began - self._since) / (step - self._from)
        self._wait()
        attempt = sender.current().attempt
        self._make(Replica(attempt, step, self.world.rank, self.world.size), trainer, loader)
        cost = time.perf_counter() - began + self._send_seconds
        # The slowest rank decides for all; infinity stands for a rank that failed.
        every = self.world.max(math.inf if self.why else cost / step_seconds / SHARE)
        if every == math.inf:
            self._turn_off(step)
            return
        if not self.every:
            self.events.emit("replicas", step=step, every=math.ceil(every), seconds=round(cost, 4))
        # The interval follows the newest measurement.
        self.every = max(1, math.ceil(every))
        self._from = step
        self._since = time.perf_counter()
        self._due = step + self.every

    def _turn_off(self, step: int) -> None:
        self.on = False
        whys = [why for why in self.world.gather(self.why) if why]
        action = "checkpoints alone are made"
        self.events.emit("replicas_off", step=step, error=whys[0], action=action)

    def _make(self, copy: Replica, trainer: Trainer, loader: Loader) -> None:
        """Write this rank's part into its node's memory, and send it in the background."""
        path = self.folder / copy.name
        part = path.with_name(f".{copy.name}.part")
        tensors = {name: local(tensor).detach().cpu() for name, tensor in trainer.tensors().items()}
        facts = {"inputs": self.inputs, "loader": json.dumps(loader.state())}
        try:
            refuse_full(self.folder, tensors)
            save_file(tensors, part, facts)
            os.replace(part, path)
            transfer.prune(self.folder, copy.rank)
        except (SafetensorError, OSError) as error:
            part.unlink(missing_ok=True)
            self.why = f"{self.folder}: {error}"
            return
        store = self._neighbour()
        if store:
            self._sending = threading.Thread(
                target=self._send, args=(path, store), name="copies", daemon=True
            )
            self._sending.start()

    def _neighbour(self) -> str:
        """The replica store of the next node, "" where there is one node alone."""
        nodes = list(dict.fromkeys(self._nodes))
        if len(nodes) == 1:
            return ""
        own = nodes.index(self._nodes[self.world.rank])
        _, store = nodes[(own + 1) % len(nodes)]
        return store

    def _send(self, path: Path, store: str) -> None:
        try:
            transfer.send_replica(address_of(store), secret(), path)
        except (EngineError, OSError) as error:
            self.unsent = str(error)
        self._send_seconds = 2 * time.thread_time()  # the store works as long as the sender

    def _wait(self) -> None:
        """Wait until the last replica is sent: the newest but one is then on every node."""
        if self._sending:
            self._sending.join()
            self._sending = None
        if self.unsent:
            action = "it is in one node's memory alone"
            self.events.emit("replica_unsent", error=self.unsent, action=action)
            self.unsent = ""


def _first_on_node() -> bool:
    return os.environ.get("LOCAL_RANK", "0") == "0"


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def secret() -> bytes:
    """The secret of the run."""
    return read_secret(Path(os.environ.get(SECRET, "secret")))


def about(path: Path) -> dict[str, str]:
    """A replica's own facts; {} where the file is not a replica."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def size_of(path: Path) -> int:
    """Bytes of a file, 0 if it is gone: a store renames files while others look."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def refuse_full(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Refuse to fill the memory.

    Raises:
        OSError: the replicas of this node's ranks and of its neighbour's would not fit.
    """
    bytes_here = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    # Two nodes' ranks; the kept steps and the one that is being written.
    needed = bytes_here * ranks * 2 * (transfer.KEPT_STEPS + 1)
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    held = sum(size_of(path) for path in folder.iterdir())
    if needed > free + held:
        raise OSError(
            errno.ENOSPC, f"copies need {needed >> 20} MiB of memory, {free >> 20} are free"
        )
