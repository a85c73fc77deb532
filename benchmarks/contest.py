"""What the side-by-side measurements share: contestants that take turns.

Each is a process of its own; two equals show the noise.

A contestant is a child `python benchmarks/NAME.py --child '{...}'` that loads, warms up, says
"ready" and answers each line with one line of JSON. What else the machine does falls on all alike,
because they take turns; how much of it is left over is what the A/A pair shows: the same
contestant twice. No ratio is printed finer than that.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import select
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pocket import machine

RESULTS = Path(__file__).with_name("results")
PATIENCE_SECONDS = 900  # with a contestant that compiles, or takes steps
PEAKS = (
    "amx_tile",
    "amx_bf16",
    "avx512_bf16",
    "avx512f",
    "avx2",
)  # what decides how fast bf16 is on a CPU


@dataclass(frozen=True)
class Contestant:
    """A name, what its child is asked for, and the environment that must stand before torch is
    loaded."""

    name: str
    asked: Mapping[str, Any]
    environment: Mapping[str, str]


class Child:
    """A contestant's process."""

    def __init__(self, contestant: Contestant, script: Path, threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **contestant.environment}
        command = [
            sys.executable,
            str(script),
            "--child",
            json.dumps(dict(contestant.asked) | {"threads": threads}),
        ]
        # a file and no pipe: nobody reads while it runs, and a full pipe stops the writer
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def answer(self) -> Any:
        """The next line it says.

        Raises:
            RuntimeError: it is silent for too long, or ended; then the line of its error that
                names one.
        """
        assert self.process.stdout
        heard, _, _ = select.select([self.process.stdout], [], [], PATIENCE_SECONDS)
        line = self.process.stdout.readline() if heard else ""
        if not heard:
            self.process.kill()
            raise RuntimeError(f"silent for {PATIENCE_SECONDS} seconds")
        if not line:
            self.errors.seek(0)
            lines = self.errors.read().splitlines()
            named = [text for text in lines if re.match(r"[\w.]+(Error|Exception|Exit)?: ", text)]
            raise RuntimeError((named or lines or [f"ended with {self.process.wait()}"])[-1][:200])
        return json.loads(line)

    def ask(self, question: Any) -> Any:
        """One line there, one line back."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self) -> None:
        """Close its input, upon which it ends."""
        self.process.communicate()


def serve(ready: Any, answer: Callable[[Any], Any]) -> None:
    """The child's side: say what it is, then answer until its input ends."""
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


@dataclass
class Heat:
    """What came of contestants that took turns: by name what they are, and what each round gave;
    or why one failed."""

    about: dict[str, Any]
    rounds: dict[str, list[Any]]
    failed: dict[str, str]


def take_turns(
    contestants: Sequence[Contestant], script: Path, threads: int, questions: Sequence[Any]
) -> Heat:
    """Every question to every contestant in turn, the order reversed in every other round. They
    warm up one after the other."""
    heat, children = Heat({}, {}, {}), {}
    for one in contestants:
        try:
            child = Child(one, script, threads)
            heat.about[one.name], heat.rounds[one.name], children[one.name] = (
                child.answer(),
                [],
                child,
            )
        except RuntimeError as error:
            heat.failed[one.name] = str(error)
        print(f"  {one.name}: {heat.failed.get(one.name, 'ready')}", file=sys.stderr)
    for number, question in enumerate(questions):
        names = list(children)
        for name in names if number % 2 == 0 else reversed(names):
            heat.rounds[name].append(children[name].ask(question))
    for child in children.values():
        child.end()
    return heat


def noise_of(first: Sequence[float], second: Sequence[float]) -> float:
    """How far two equals lie apart, as a factor of at least 1: their medians, and the middle half
    of their paired ratios."""
    pairs = sorted(a / b for a, b in zip(first, second, strict=True))
    middle = [statistics.median(first) / statistics.median(second)]
    if (
        len(pairs) > 3
    ):  # a round's ratio scatters by this; the median of n rounds by about this over the root of n
        low, high = pairs[len(pairs) // 4], pairs[(3 * len(pairs)) // 4]
        middle.append((high / low) ** (1 / len(pairs) ** 0.5))
    return max(max(ratio, 1 / ratio) for ratio in middle)


def said(ratio: float, noise: float) -> str:
    """A ratio, no finer than the noise."""
    if 1 / noise <= ratio <= noise:
        return "same"
    digits = 2 if noise < 1.02 else 1 if noise < 1.2 else 0
    text = f"{ratio:.{digits}f}"
    return (
        f"{text}x"
        if float(text) not in (0.0, 1.0)
        else f"{'more' if ratio > 1 else 'less'} than 1x"
    )


def table(head: Sequence[str], rows: Iterator[Sequence[Any]] | Sequence[Sequence[Any]]) -> str:
    """Markdown; the first column to the left, the others to the right."""
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)])


@contextlib.contextmanager
def ended(child: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A child with a session of its own; afterwards it is ended with all it started."""
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def circumstances(packages: Sequence[str]) -> dict[str, Any]:
    """Command, day, machine and versions, for the head of a result."""
    flags = next(
        (
            line
            for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
            if line.startswith("flags")
        ),
        "",
    ).split()
    return {
        "command": " ".join(["python", *(["benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]])]),
        "date": date.today().isoformat(),
        "machine": {**machine(), "instructions": [flag for flag in PEAKS if flag in flags]},
        "versions": {
            "python": platform.python_version(),
            **{name: installed(name) for name in packages},
        },
    }


def installed(name: str) -> str:
    """A package's version."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def headline(result: Mapping[str, Any]) -> str:
    """One line that says on what."""
    about = result["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    kind = f"{about['cpu']} ({', '.join(about['instructions'])}), {about['cores']} cores"
    return f"{kind}, load before {about['load_before']}; {packages}"


def write(name: str, result: Mapping[str, Any], out: Path | None) -> None:
    """The result as JSON under results/, or where it is asked for."""
    path = out or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"\n{path}: written")
