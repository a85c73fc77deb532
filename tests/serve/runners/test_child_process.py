"""The child process: it dies with its parent, gets no secrets, opens no port, and says why it does not start."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.serve.client import eventually

from tumen.core.errors import RunnerError
from tumen.serve.runners import child_process, load_runner


def is_dead(pid: int) -> bool:
    """Whether a process is gone, or a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def listening_ports(pid: int) -> list[str]:
    """TCP listeners among a process's open files."""
    inodes = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            row = line.split()
            if row[3] == "0A" and f"socket:[{row[9]}]" in inodes:
                found.append(row[1])
    return found


def test_the_child_dies_with_a_parent_that_is_killed(bundle: Path) -> None:
    code = f"""
        import sys, time
        from pathlib import Path
        from tumen.serve.runners import load_runner
        runner = load_runner(Path({str(bundle)!r}))
        print(runner.pid, runner._child._folder, flush=True)
        time.sleep(60)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    pid, folder = parent.stdout.readline().split()
    assert not is_dead(int(pid))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert eventually(lambda: is_dead(int(pid)))
    assert eventually(lambda: not Path(folder).exists())


def test_the_child_imports_the_same_tumen_as_its_parent(bundle: Path) -> None:
    """A parent that found tumen through `sys.path` alone passes that path on."""
    source = Path(child_process.__file__).parents[3]
    code = f"""
        import sys
        sys.path.insert(0, {str(source)!r})
        from pathlib import Path
        from tumen.serve.runners import load_runner
        with load_runner(Path({str(bundle)!r})) as runner:
            print(Path(f"/proc/{{runner.pid}}/environ").read_bytes().decode())
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert f"PYTHONPATH={source}" in result.stdout


def test_stop_ends_the_child_and_removes_its_socket(bundle: Path) -> None:
    runner = load_runner(bundle)
    pid = runner.pid
    folder = runner._child._folder
    assert pid
    assert folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not listening_ports(pid)
    runner.stop()
    runner.stop()
    assert is_dead(pid)
    assert not folder.exists()


def test_a_stopped_child_is_not_restarted(bundle: Path) -> None:
    runner = load_runner(bundle)
    runner.stop()
    with pytest.raises(RunnerError, match="is closed"):
        runner.ask("turn on")
    assert runner.pid is None


def test_the_child_gets_no_secrets(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUMEN_CLOUD_KEY", "s3cret")
    monkeypatch.setenv("my_password", "s3cret")
    with load_runner(bundle) as runner:
        environment = Path(f"/proc/{runner.pid}/environ").read_bytes()
    assert b"s3cret" not in environment
    assert b"OMP_NUM_THREADS=1" in environment


def test_a_full_disk_at_the_start_is_one_line(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(child_process.tempfile, "mkdtemp", full)
    with pytest.raises(RunnerError, match="cannot be started: No space left on device"):
        load_runner(bundle)


def test_a_model_llama_cpp_rejects_is_one_line(
    tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    """The header is plausible, but lacks an epsilon of which only llama.cpp knows that it is needed."""
    folder = make_bundle(tmp_path / "b", changes={"llama.attention.layer_norm_rms_epsilon": None})
    message = r"model.gguf: the runner did not start \(exit code 1\): .*epsilon"
    with pytest.raises(RunnerError, match=message) as caught:
        load_runner(folder)
    assert "\n" not in str(caught.value)


def test_a_child_that_is_not_ready_in_time_is_one_line(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_process, "START_SECONDS", 0.0)
    with pytest.raises(RunnerError, match="did not start \\(not ready after 0 s\\)"):
        load_runner(bundle)


def test_a_child_that_hangs_is_killed_and_restarted(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with load_runner(bundle) as runner:
        assert runner.pid is not None
        os.kill(runner.pid, signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(child_process, "ANSWER_SECONDS", 0.3)
            with pytest.raises(RunnerError, match="no answer within"):
                runner.ask("turn on")
        assert eventually(lambda: runner.pid is None)
        assert runner.ask("turn on").text


def test_a_long_temporary_folder_is_avoided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process.tempfile, "gettempdir", lambda: "/tmp/" + "x" * 90)
    assert child_process._socket_parent() == "/tmp"
    monkeypatch.setattr(child_process.tempfile, "gettempdir", lambda: "/var/tmp")
    assert child_process._socket_parent() is None
