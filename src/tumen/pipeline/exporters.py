"""Export a run's training metrics to TensorBoard and Prometheus.

Both read the run's append-only events. Training does not know of them and never waits for them, and
a run that ended long ago is exported like one that is running. Each needs its library (extras
`tensorboard`, `prometheus`).
"""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any

from tumen.core.errors import InputError, RunnerBusy, disk
from tumen.core.events import Tail
from tumen.core.extras import optional

PURPOSE = "the export to TensorBoard"
event_file_writer = optional("tensorboard.summary.writer.event_file_writer", PURPOSE)
event_pb2 = optional("tensorboard.compat.proto.event_pb2", PURPOSE)
summary_pb2 = optional("tensorboard.compat.proto.summary_pb2", PURPOSE)
prometheus_client = optional("prometheus_client", "the export to Prometheus")

POLL_SECONDS = 2.0
GAUGES = {  # numbers of a step event, and their meaning
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
MORE_GAUGES = {
    "validation_loss": "loss on the validation shards, in nats",
    "event_seconds": "time of the newest event",
}
COUNTS = {  # events that are counted: name of the counter, and its meaning
    "train": ("starts", "starts of the training, the first and every resume"),
    "checkpoint": ("checkpoints", "written"),
}
SUFFIX = ".tumen"  # of our event files, so that an export replaces earlier ones and nothing else


def export_metrics(
    run: Path,
    *,
    tensorboard: Path | None,
    prometheus: tuple[str, int] | None,
    textfile: Path | None,
    follow: bool,
    report: Callable[[str], None],
) -> None:
    """Export the metrics of a run.

    Args:
        run: its folder.
        tensorboard: folder for TensorBoard's event files.
        prometheus: host and port where /metrics is served, until the process is stopped.
        textfile: a *.prom file for node-exporter.
        follow: go on while the run does; serving always does.
        report: receives a line about each export.

    Raises:
        MissingExtra: the library of an export is not installed.
        RunnerBusy: the port is taken.
        InputError: the address cannot be served.
    """
    tail = Tail(run / "events.jsonl")
    gauges = Gauges(run)
    board = TensorBoard(tensorboard) if tensorboard else None
    if prometheus:
        report(serve_metrics(gauges, *prometheus))
    while True:
        if board:
            written = board.write(tail.new())
        else:
            written = 0
        if written:
            report(f"{tensorboard}: {written:,} scalars")
        if textfile:
            gauges.write(textfile)
        if not (follow or prometheus):
            break
        time.sleep(POLL_SECONDS)
    if board:
        board.close()
    if textfile:
        report(f"{textfile}: written")


def serve_metrics(gauges: Gauges, host: str, port: int) -> str:
    """Serve /metrics from a thread; return the URL.

    Raises:
        RunnerBusy: the port is taken.
        InputError: the address is not this machine's.
    """
    try:
        server, _ = prometheus_client.start_http_server(port, host, gauges.registry())
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise RunnerBusy(f"{host}:{port} is taken; name another port") from None
        raise InputError(f"--prometheus {host}:{port}: {error.strerror or error}") from None
    return f"http://{host}:{server.server_port}/metrics"


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """Return what an event measures, by name; empty for other events."""
    if row.get("event") == "validation":
        return {"validation_loss": row["loss"]}
    if row.get("event") != "step":
        return {}
    return {name: row[name] for name in GAUGES if isinstance(row.get(name), int | float)}


class TensorBoard:
    """A TensorBoard folder: a run for each tier, a scalar for each number.

    Scalars have the time and step of their events.

    Event files that an earlier export left in the folder are replaced.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writers: dict[str, Any] = {}
        self.open = event_file_writer.EventFileWriter
        with disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob(f"*/events.out.tfevents.*{SUFFIX}"):
                old.unlink()

    def write(self, rows: Iterable[dict[str, Any]]) -> int:
        """Write events and flush; return the number of scalars they held."""
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
        """Write one event; return the number of its scalars."""
        scalars = numbers(row)
        if scalars:
            self._add(row["tier"], self._scalars(row, scalars))
        if row.get("event") == "train":
            self._add(row["tier"], self._restart(row))
        return len(scalars)

    def _scalars(self, row: dict[str, Any], scalars: dict[str, float]) -> Any:
        values = [
            summary_pb2.Summary.Value(tag=f"train/{name}", simple_value=value)
            for name, value in scalars.items()
        ]
        summary = summary_pb2.Summary(value=values)
        return event_pb2.Event(wall_time=row["time"], step=row["step"], summary=summary)

    def _restart(self, row: dict[str, Any]) -> Any:
        """A resumed training repeats steps: this discards what was logged after its checkpoint."""
        log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        return event_pb2.Event(wall_time=row["time"], step=row["step"] + 1, session_log=log)

    def _add(self, tier: str, event: Any) -> None:
        if tier not in self.writers:
            self.writers[tier] = self.open(str(self.folder / tier), filename_suffix=SUFFIX)
        self.writers[tier].add_event(event)


class Gauges:
    """A Prometheus collector of a run.

    Each scrape reads the newest numbers of every tier from the events.
    """

    def __init__(self, run: Path) -> None:
        self.run = run.resolve().name
        self.tail = Tail(run / "events.jsonl")
        self.lock = Lock()  # scrapes may overlap
        self.newest: dict[str, dict[str, float]] = {}  # by tier
        self.counts: Counter[tuple[str, str]] = Counter()  # by event and tier

    def collect(self) -> Iterator[Any]:
        """Yield metric families, as `prometheus_client` asks of a collector."""
        with self.lock:
            for row in self.tail.new():
                self._read(row)
            newest = {tier: dict(found) for tier, found in self.newest.items()}
            counts = dict(self.counts)
        yield from self._gauges(newest)
        yield from self._counters(counts)

    def _gauges(self, newest: dict[str, dict[str, float]]) -> Iterator[Any]:
        for name, meaning in (GAUGES | MORE_GAUGES).items():
            family = prometheus_client.metrics_core.GaugeMetricFamily(
                f"tumen_train_{name}", meaning, labels=("run", "tier")
            )
            for tier, found in newest.items():
                if name in found:
                    family.add_metric((self.run, tier), found[name])
            yield family

    def _counters(self, counts: dict[tuple[str, str], int]) -> Iterator[Any]:
        for event, (name, meaning) in COUNTS.items():
            counter = prometheus_client.metrics_core.CounterMetricFamily(
                f"tumen_train_{name}", meaning, labels=("run", "tier")
            )
            for (kind, tier), count in counts.items():
                if kind == event:
                    counter.add_metric((self.run, tier), count)
            yield counter

    def _read(self, row: dict[str, Any]) -> None:
        """Remember the numbers of an event."""
        tier = row.get("tier")
        event = row.get("event")
        if not isinstance(tier, str):
            return
        found = self.newest.setdefault(tier, {})
        found.update(numbers(row))
        found["event_seconds"] = row["time"]
        if event in COUNTS:
            self.counts[event, tier] += 1

    def registry(self) -> Any:
        """Return a registry that holds this collector alone."""
        registry = prometheus_client.CollectorRegistry()
        registry.register(self)
        return registry

    def write(self, path: Path) -> None:
        """Write the text exposition atomically, for node-exporter's textfile collector."""
        with disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            prometheus_client.write_to_textfile(str(path), self.registry())
