"""What a run tells of its training, for the tools a world watches with: TensorBoard and Prometheus.

Both read the run's append-only events, so training knows nothing of them, waits for none, and a run that ended long ago is
exported like one that is at work. Each needs its library (extras `tensorboard`, `prometheus`), imported on use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any

from tumen.core.errors import disk
from tumen.core.events import Tail
from tumen.core.extras import optional

PURPOSE = "the export to TensorBoard"
event_file_writer = optional("tensorboard.summary.writer.event_file_writer", PURPOSE)
event_pb2 = optional("tensorboard.compat.proto.event_pb2", PURPOSE)
summary_pb2 = optional("tensorboard.compat.proto.summary_pb2", PURPOSE)
prometheus = optional("prometheus_client", "the export to Prometheus")

GAUGES = {  # numbers of a step event, and what they are
    "loss": "loss of the step, in nats",
    "gradient_norm": "norm of the gradient before clipping",
    "rate": "learning rate",
    "step_seconds": "seconds of a step",
    "tokens_per_second": "tokens a second, padding included",
    "real_tokens": "tokens of the step without padding",
    "mfu": "model FLOPs utilisation, as a share of the measured peak",
    "peak_bytes": "largest resident memory of rank 0",
    "expert_load": "the fullest expert over the mean one",
    "dropped": "share of the experts' tokens that were dropped",
    "seconds_left": "seconds until the last step",
    "step": "finished steps",
    "steps": "steps of the whole training",
}
COUNTS = {
    "train": ("starts", "starts of the training, the first and every resume"),
    "checkpoint": ("checkpoints", "written"),
}
SUFFIX = ".tumen"  # of our event files, so that a new conversion takes the place of the old one and of nothing else


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """What an event measures, by name; nothing if it measures nothing."""
    if row.get("event") == "validation":
        return {"validation_loss": row["loss"]}
    if row.get("event") != "step":
        return {}
    return {name: row[name] for name in GAUGES if isinstance(row.get(name), int | float)}


class TensorBoard:
    """A TensorBoard folder: one run a tier, a scalar a number, at the time and step of the event.

    Event files that an earlier conversion left in the folder are replaced.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writers: dict[str, Any] = {}
        self.open = event_file_writer.EventFileWriter
        with disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob(f"*/events.out.tfevents.*{SUFFIX}"):
                old.unlink()

    def take(self, rows: Iterable[dict[str, Any]]) -> int:
        """Write events and flush; returns how many scalars they held."""
        with disk(self.folder):
            written = sum(self._write(row) for row in rows)
            for writer in self.writers.values():
                writer.flush()
        return written

    def close(self) -> None:
        """Finish the files."""
        for writer in self.writers.values():
            writer.close()

    def _write(self, row: dict[str, Any]) -> int:
        scalars = numbers(row)
        if scalars:
            values = [
                summary_pb2.Summary.Value(tag=f"train/{name}", simple_value=value)
                for name, value in scalars.items()
            ]
            self._writer(row["tier"]).add_event(
                event_pb2.Event(
                    wall_time=row["time"],
                    step=row["step"],
                    summary=summary_pb2.Summary(value=values),
                )
            )
        if (
            row.get("event") == "train"
        ):  # a resumed training repeats steps: what was logged after its checkpoint is taken back
            log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._writer(row["tier"]).add_event(
                event_pb2.Event(wall_time=row["time"], step=row["step"] + 1, session_log=log)
            )
        return len(scalars)

    def _writer(self, tier: str) -> Any:
        if tier not in self.writers:
            self.writers[tier] = self.open(str(self.folder / tier), filename_suffix=SUFFIX)
        return self.writers[tier]


class Gauges:
    """A Prometheus collector of a run: the newest numbers of every tier, read from its events when it is asked."""

    def __init__(self, run: Path) -> None:
        self.run, self.tail, self.lock = run.resolve().name, Tail(run / "events.jsonl"), Lock()
        self.newest: dict[str, dict[str, float]] = {}
        self.counts: Counter[tuple[str, str]] = Counter()

    def collect(self) -> Iterator[Any]:
        """Metric families, as `prometheus_client` wants them of a collector."""
        with self.lock:  # scrapes may come together
            for row in self.tail.new():
                self._take(row)
            newest, counts = (
                {tier: dict(found) for tier, found in self.newest.items()},
                dict(self.counts),
            )
        about = GAUGES | {
            "validation_loss": "loss on the validation shards, in nats",
            "event_seconds": "time of the newest event",
        }
        for name, meaning in about.items():
            family = prometheus.metrics_core.GaugeMetricFamily(
                f"tumen_train_{name}", meaning, labels=("run", "tier")
            )
            for tier, found in newest.items():
                if name in found:
                    family.add_metric((self.run, tier), found[name])
            yield family
        for event, (name, meaning) in COUNTS.items():
            counter = prometheus.metrics_core.CounterMetricFamily(
                f"tumen_train_{name}", meaning, labels=("run", "tier")
            )
            for (kind, tier), count in counts.items():
                if kind == event:
                    counter.add_metric((self.run, tier), count)
            yield counter

    def _take(self, row: dict[str, Any]) -> None:
        tier, event = row.get("tier"), row.get("event")
        if not isinstance(tier, str):
            return
        self.newest.setdefault(tier, {}).update(numbers(row) | {"event_seconds": row["time"]})
        if event in COUNTS:
            self.counts[event, tier] += 1

    def registry(self) -> Any:
        """A registry that holds this collector alone."""
        registry = prometheus.CollectorRegistry()
        registry.register(self)
        return registry

    def write(self, path: Path) -> None:
        """The text exposition as a file that appears whole, for node-exporter's textfile collector."""
        with disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            prometheus.write_to_textfile(str(path), self.registry())
