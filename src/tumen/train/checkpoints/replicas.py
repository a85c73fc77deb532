"""Copies of the state in memory, every few steps: a node that dies costs those steps, not the ones since the last checkpoint.

    rank r --file--> memory of its node (TUMEN_REPLICA_FOLDER) --TCP, in the background--> memory of the next node (TUMEN_REPLICA_STORE)

A new attempt goes on from the newest step of which some node holds every rank's part, or from the newest checkpoint, whichever is
newer; each rank takes its part from its own node, or fetches it. So only the same number of ranks goes on from memory. How often
copies are made is measured: they take at most `SHARE` of the time. That a copy fails never stops a training.
"""

from __future__ import annotations

import contextlib
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

FOLDER, KEEPER = (
    "TUMEN_REPLICA_FOLDER",
    "TUMEN_REPLICA_STORE",
)  # environment of a rank: its node's folder, where its node's keeper listens
SHARE = 0.01  # of the time that copies may take, their sending and keeping included
WARM_STEPS = 3  # until steps take as long as they usually do


class Copies:
    """The copies of this rank; none are made where no agent says where.

    Args:
        world: who trains.
        inputs: what the run is made for; copies of other inputs are not used.
        events: rank 0's are written.
    """

    def __init__(self, world: World, inputs: str, events: Events) -> None:
        self.world = world
        self.inputs = inputs
        self.events = events
        self.folder = Path(os.environ.get(FOLDER, ""))
        self.on = False
        self.every = 0
        self.why = self.unsent = ""  # no copy could be made, sent
        self._nodes: list[tuple[str, str]] = []  # of each rank: its node's folder and keeper
        self._held: dict[
            tuple[int, int], dict[int, str]
        ] = {}  # (step, attempt) -> rank -> keeper of a node that has its part
        self._due = self._from = 0
        self._since = self._send_seconds = 0.0
        self._sending: threading.Thread | None = None

    # -- going on

    def meet(self) -> int:
        """Tell each other what the nodes hold. Returns the newest step that is whole, 0 for none; the same on every rank."""
        first = os.environ.get("LOCAL_RANK", "0") == "0"
        here = (os.environ.get(FOLDER, ""), os.environ.get(KEEPER, ""))
        found: list[tuple[tuple[str, str], list[Replica]]] = self.world.gather(
            (here, self._here() if first and all(here) else [])
        )
        self._nodes = [node for node, _ in found]
        self.on = all(all(node) for node in self._nodes)
        held: dict[tuple[int, int], dict[int, str]] = defaultdict(dict)
        for (_, keeper), copies in found:
            for copy in copies:
                held[copy.step, copy.attempt][copy.rank] = keeper
        self._held = {key: parts for key, parts in held.items() if len(parts) == self.world.size}
        return max(self._held, default=(0, 0))[0]

    def _here(self) -> list[Replica]:
        """What this node holds of this run, for this many ranks."""
        copies = [
            copy for copy in transfer.replicas_in(self.folder) if copy.world == self.world.size
        ]
        return [
            copy for copy in copies if about(self.folder / copy.name).get("inputs") == self.inputs
        ]

    @torch.no_grad()
    def restore(self, trainer: Trainer) -> State | None:
        """Fill the trainer from the newest step that is whole and can be read by all; None: from none."""
        for key in sorted(self._held, reverse=True):
            try:
                part, state, why = (
                    *self._part(trainer, Replica(key[1], key[0], self.world.rank, self.world.size)),
                    "",
                )
            except (TumenError, SafetensorError, OSError, ValueError) as error:
                why = str(error)
            if whys := [why for why in self.world.gather(why) if why]:
                self.events.emit(
                    "copy_damaged", step=key[0], error=whys[0], action="the one before is used"
                )
                continue
            for name, tensor in trainer.tensors().items():
                local(tensor).copy_(part[name])
            trainer.restored(state.step)
            self._forget(*key)
            return state
        return None

    def _part(self, trainer: Trainer, copy: Replica) -> tuple[dict[str, Tensor], State]:
        """This rank's part of a step: from its node, or from one that has it."""
        path = self.folder / copy.name
        if not path.exists():
            transfer.fetch_replica(
                address_of(self._held[copy.step, copy.attempt][copy.rank]),
                secret(),
                copy.name,
                self.folder,
            )
        safetensors_header.check(path)
        part = load_file(path)
        said = about(path)
        wanted = {
            name: (local(tensor).shape, tensor.dtype) for name, tensor in trainer.tensors().items()
        }
        if said.get("inputs") != self.inputs or wanted != {
            name: (tensor.shape, tensor.dtype) for name, tensor in part.items()
        }:
            raise ArtifactError(f"{path}: is of another network; a checkpoint is used")
        return part, State(copy.step, json.loads(said["loader"]))

    def _forget(self, step: int = 0, attempt: int = 0) -> None:
        """Remove what this node holds but that step: a later attempt must not mix it with its own."""
        for copy in (
            transfer.replicas_in(self.folder) if os.environ.get("LOCAL_RANK", "0") == "0" else ()
        ):
            if (copy.step, copy.attempt) != (step, attempt):
                (self.folder / copy.name).unlink(missing_ok=True)

    # -- making them

    def begin(self, step: int, restored: bool) -> None:
        """Training begins, on every rank, after `step` steps; `restored`: from a copy."""
        if self.on and not restored:
            self._forget()
        self._from = step
        self._since = time.perf_counter()
        self._due = step + WARM_STEPS

    def look(self, step: int, trainer: Trainer, loader: Loader) -> None:
        """After a step, on every rank: make a copy when it is time."""
        if not self.on or step < self._due:
            return
        began = time.perf_counter()
        step_seconds = (began - self._since) / (step - self._from)
        self._wait()
        self._make(
            Replica(sender.current().attempt, step, self.world.rank, self.world.size),
            trainer,
            loader,
        )
        cost = time.perf_counter() - began + self._send_seconds
        every = self.world.max(math.inf if self.why else cost / step_seconds / SHARE)
        if every == math.inf:
            self.on = False
            whys = self.world.gather(self.why)
            self.events.emit(
                "copies_off",
                step=step,
                error=next(filter(None, whys)),
                action="checkpoints alone are made",
            )
            return
        if not self.every:
            self.events.emit("copies", step=step, every=math.ceil(every), seconds=round(cost, 4))
        self.every = max(1, math.ceil(every))
        self._from = step
        self._since = time.perf_counter()
        self._due = step + self.every

    def _make(self, copy: Replica, trainer: Trainer, loader: Loader) -> None:
        """Write this rank's part into its node's memory, and send it on in the background."""
        path = self.folder / copy.name
        part = path.with_name(f".{copy.name}.part")
        tensors = {name: local(tensor).detach().cpu() for name, tensor in trainer.tensors().items()}
        try:
            refuse_full(self.folder, tensors)
            save_file(tensors, part, {"inputs": self.inputs, "loader": json.dumps(loader.state())})
            os.replace(part, path)
            transfer.prune(self.folder, copy.rank)
        except (SafetensorError, OSError) as error:
            part.unlink(missing_ok=True)
            self.why = f"{self.folder}: {error}"
            return
        keeper = self._neighbour()
        if keeper:
            self._sending = threading.Thread(
                target=self._send, args=(path, keeper), name="copies", daemon=True
            )
            self._sending.start()

    def _neighbour(self) -> str:
        """The keeper of the next node, "" where there is none."""
        nodes = list(dict.fromkeys(self._nodes))
        after = nodes[(nodes.index(self._nodes[self.world.rank]) + 1) % len(nodes)]
        return after[1] if len(nodes) > 1 else ""

    def _send(self, path: Path, keeper: str) -> None:
        try:
            transfer.send_replica(address_of(keeper), secret(), path)
        except (EngineError, OSError) as error:
            self.unsent = str(error)
        self._send_seconds = 2 * time.thread_time()  # the keeper works as much as we

    def _wait(self) -> None:
        """Until the copy before is where it should be: then the newest but one is whole on every node."""
        if self._sending:
            self._sending.join()
            self._sending = None
        if self.unsent:
            self.events.emit(
                "copy_unsent", error=self.unsent, action="it is in one node's memory alone"
            )
            self.unsent = ""


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def secret() -> bytes:
    """The secret of the run."""
    return read_secret(Path(os.environ.get(SECRET, "secret")))


def about(path: Path) -> dict[str, str]:
    """What a copy says of itself, nothing where it is none."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def size_of(path: Path) -> int:
    """Bytes of a file, none when it is gone: a keeper's unfinished file is renamed while others look."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def refuse_full(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Leave memory to others.

    Raises:
        OSError: the copies of this node's ranks and of its neighbour's would not fit.
    """
    bytes_here = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    needed = (
        bytes_here * int(os.environ.get("LOCAL_WORLD_SIZE", "1")) * 2 * (transfer.KEPT_STEPS + 1)
    )
    space = os.statvfs(folder)
    held = sum(map(size_of, folder.iterdir()))
    if needed > space.f_bavail * space.f_frsize + held:
        raise OSError(
            28,
            f"copies need {needed >> 20} MiB of memory, {space.f_bavail * space.f_frsize >> 20} are free",
        )
