"""A kill -9 while sentences are made leaves no process behind."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = """
import sys
from pathlib import Path
from tumen.recipe import Data
from tumen.data import write_corpus
if __name__ == "__main__":
    print("started", flush=True)
    write_corpus(Data(sentences=60_000), 0, Path(sys.argv[1]) / "corpus", "")
"""


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if int(path.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_no_orphans(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    process = subprocess.Popen([sys.executable, tmp_path / "program.py", tmp_path])
    deadline = time.monotonic() + 30
    while len(workers := children(process.pid)) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    while any(map(runs, workers)):
        assert time.monotonic() < deadline, f"{workers} outlived their starter"
        time.sleep(0.02)
    assert not (tmp_path / "corpus").exists()
