"""How long one command takes in the device runner, and what each way to reach its child costs.

    python benchmarks/runner.py BUNDLE [--rounds 40] [--json]

Rows: `load` until ready, `first` answer, `ask` (blocking) and `act` (async) of the product, which
decodes in a loop of its own; then llama.cpp's server under a grammar, asked over `socket` (HTTP
over a private Unix socket, what the product did before), `pipe` (JSON lines, answered in the child
by `handle_completions`) and `tcp` (HTTP on a loopback port by aiohttp, connection kept).
Milliseconds, one thread.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tumen.language.action import DO, grammar, normalise
from tumen.serve.runners import load_runner

SENTENCES = [
    "turn on the kitchen light",
    "what is the temperature in the living room",
    "set the bedroom lamp to 40 percent",
    "add milk to my shopping list",
    "打开厨房的灯",
    "把客厅空调调到26度",
    "mach das Licht in der Küche an",
    "starte einen Timer für fünf Minuten",
]
CHILD = """
import json, os, sys, xllamacpp
out = os.fdopen(os.dup(1), "wb", 0); os.dup2(2, 1)
model, host = sys.argv[1:]
params = xllamacpp.CommonParams()
params.model.path = model
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.n_ctx = params.n_batch = params.n_ubatch = 512
params.n_parallel, params.warmup, params.fit_params, params.cache_ram_mib = 1, False, False, 0
params.chat_template, params.verbosity, params.hostnames = "chatml", 0, [host]
server = xllamacpp.Server(params)
out.write(server.listening_address.encode() + b"\\n")
for line in sys.stdin.buffer:
    server.handle_completions(line, lambda answer: out.write(answer + b"\\n") and False)
os._exit(0)
"""


def request(sentence: str) -> dict[str, Any]:
    """A command under the grammar of its sentence."""
    words = normalise(sentence)
    body: dict[str, Any] = {
        "prompt": words + DO,
        "grammar": grammar(words),
        "n_predict": -1,
        "n_probs": 1,
    }
    return body | {"temperature": 0, "cache_prompt": False, "return_tokens": True}


def timed(doors: dict[str, Callable[[str], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each call. The doors take turns, so that what else the machine does falls on
    all alike."""
    found: dict[str, list[float]] = {name: [] for name in doors}
    for n in range(rounds + 1):
        for sentence in SENTENCES:
            for name, door in doors.items():
                start = time.perf_counter()
                door(sentence)
                if n:  # the first round warms up
                    found[name].append(1e3 * (time.perf_counter() - start))
    return found


def starts(bundle: Path, times: int) -> dict[str, list[float]]:
    """Milliseconds from nothing to ready, and of the first answer."""
    found: dict[str, list[float]] = {"load_runner": [], "first": []}
    for _ in range(times):
        start = time.perf_counter()
        with load_runner(bundle) as runner:
            ready = time.perf_counter()
            runner.ask(SENTENCES[0])
            found["load_runner"].append(1e3 * (ready - start))
            found["first"].append(1e3 * (time.perf_counter() - ready))
    return found


def answers(bundle: Path, rounds: int) -> dict[str, list[float]]:
    """The product's doors, and the same requests over a socket, a pipe and a port."""
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner() as loop,
        load_runner(bundle) as runner,
    ):
        path = Path(folder) / "s.sock"
        near, _ = start_child(bundle / "model.gguf", str(path))
        far, url = start_child(bundle / "model.gguf", "127.0.0.1")
        session = loop.run(open_session())
        doors = {
            "ask": runner.ask,
            "act": lambda sentence: loop.run(runner.act(sentence)),
            "socket": lambda sentence: over_socket(path, sentence),
            "pipe": lambda sentence: over_pipe(near, sentence),
            "tcp": lambda sentence: loop.run(over_port(session, url, sentence)),
        }
        found = timed(doors, rounds)
        loop.run(session.close())
        end_child(near)
        end_child(far)
    return found


def start_child(model: Path, host: str) -> tuple[subprocess.Popen[bytes], str]:
    """A bare child and the address it listens on."""
    command = [sys.executable, "-P", "-c", CHILD, str(model), host]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout
    return child, child.stdout.readline().decode().strip()


def end_child(child: subprocess.Popen[bytes]) -> None:
    """Close its pipes and wait."""
    assert child.stdin
    assert child.stdout
    child.stdin.close()
    child.stdout.close()
    child.wait()


def over_socket(path: Path, sentence: str) -> None:
    """A connection a request."""
    line = http.client.HTTPConnection("localhost")
    line.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.sock.connect(str(path))
    line.request("POST", "/completion", json.dumps(request(sentence)), {"connection": "close"})
    json.loads(line.getresponse().read())
    line.close()


def over_pipe(child: subprocess.Popen[bytes], sentence: str) -> None:
    """A line each way."""
    assert child.stdin
    assert child.stdout
    child.stdin.write(json.dumps(request(sentence)).encode() + b"\n")
    child.stdin.flush()
    json.loads(child.stdout.readline())


async def open_session() -> Any:
    """An aiohttp session, whose connection is kept."""
    import aiohttp

    return aiohttp.ClientSession()


async def over_port(session: Any, url: str, sentence: str) -> None:
    """A request on a loopback port."""
    async with session.post(f"{url}/completion", json=request(sentence)) as answer:
        await answer.json()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    rows = starts(wanted.bundle, 9) | answers(wanted.bundle, wanted.rounds)
    result = {
        "model_bytes": (wanted.bundle / "model.gguf").stat().st_size,
        "rounds": wanted.rounds,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "xllamacpp": version("xllamacpp"),
        "milliseconds": {
            name: {
                "p50": round(statistics.median(row), 2),
                "p95": round(sorted(row)[int(0.95 * len(row))], 2),
            }
            for name, row in rows.items()
        },
    }
    if wanted.json:
        print(json.dumps(result, indent=1))
        return
    print(", ".join(f"{name} {value}" for name, value in result.items() if name != "milliseconds"))
    for name, row in result["milliseconds"].items():
        print(f"{name:8} p50 {row['p50']:7.2f} ms   p95 {row['p95']:7.2f} ms")


if __name__ == "__main__":
    main()
