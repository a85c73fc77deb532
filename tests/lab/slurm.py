"""A Slurm cluster on one machine: munge, slurmctld and N slurmd, each with a host name, an address and a network of its own.

    ./dev lab slurm 8          start 8 nodes (or keep the 8 that run) and print how to use them
    ./dev lab slurm down       stop them, by the process ids they wrote
    ./dev lab slurm install    Debian's slurm-wlm, munge and iproute2

Everything is real but the cards: a node's eight `gpu:h100` are device files that lead to /dev/null, so that --gpus-per-node, waiting
for cards and CUDA_VISIBLE_DEVICES are Slurm's own. One folder holds all state: TUMEN_LAB, default /tmp/tumen-lab. Needs root.

Not the packages slurm-wlm-emulator: they replace slurmd by one in which every task of a step has rank 0.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

FOLDER = Path(os.environ.get("TUMEN_LAB", "/tmp/tumen-lab"))
PACKAGES = ("slurm-wlm", "munge", "iproute2")
BRIDGE, PREFIX = "tumenlab", "tumen-"  # a node's network namespace is tumen-n1
CARDS = 8
RACK = 500  # nodes on a bridge
PATIENCE_SECONDS = 120.0
SILENT_SECONDS, NODES_A_SECOND = (
    6,
    10,
)  # until a silent node is down: a few cores must answer for all of them
ANSWER_SECONDS = 10  # Slurm's own MessageTimeout

CONF = """\
ClusterName=lab
SlurmctldHost=ctl(10.77.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock,cred_expire={silent}
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/%n.pid
SlurmctldLogFile={folder}/log/slurmctld
SlurmdLogFile={folder}/log/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SlurmdTimeout={silent}
MessageTimeout={answer}
KillWait={kill}
UnkillableStepTimeout={unkillable}
JobRequeue=1
EnforcePartLimits=ALL
SchedulerParameters=batch_sched_delay=1,sched_interval=2
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=one Nodes=n1 MaxTime=INFINITE State=UP
PartitionName=closed Nodes=ALL AllowAccounts=nobody MaxTime=INFINITE State=UP
"""


class LabError(Exception):
    """The lab cannot run here; one line."""


def cannot() -> str:
    """Why the lab cannot run here, "" when it can."""
    if os.geteuid() != 0:
        return "the Slurm lab makes network namespaces, which needs root"
    missing = [
        name
        for name in ("slurmctld", "slurmd", "munged", "ip", "nsenter")
        if not shutil.which(name)
    ]
    if missing:
        return f"the Slurm lab misses {', '.join(missing)}: ./dev lab slurm install"
    tried = subprocess.run(
        ["unshare", "--net", "--uts", "--mount", "true"], capture_output=True, text=True
    )
    return (
        f"the Slurm lab cannot make namespaces here: {tried.stderr.strip()}"
        if tried.returncode
        else ""
    )


def install() -> None:
    """Install Debian's packages."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise LabError(f"needs root and apt-get; install {', '.join(PACKAGES)} yourself")
    said = {
        "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        "stdout": subprocess.DEVNULL,
    }
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES]
    if subprocess.run(command, **said, stderr=subprocess.DEVNULL).returncode:  # type: ignore[call-overload]
        subprocess.run(["apt-get", "update"], **said)  # type: ignore[call-overload]
        if subprocess.run(command, **said).returncode:  # type: ignore[call-overload]
            raise LabError(f"apt-get could not install {', '.join(PACKAGES)}")


def environment(folder: Path = FOLDER) -> dict[str, str]:
    """What Slurm's commands need to find the lab."""
    return {"SLURM_CONF": str(folder / "slurm.conf")}


def up(count: int, folder: Path = FOLDER) -> None:
    """Start a cluster of `count` nodes, or keep the one that runs.

    Raises:
        LabError: it cannot run here, or did not come up.
    """
    if why := cannot():
        raise LabError(why)
    if running(folder) == count and states(folder).get("idle", 0) == count:
        return
    down(folder)
    _write(count, folder)
    _network(count)
    _munge(folder)
    _comes_first(folder / "run" / "munged.pid")
    _daemon(["slurmctld"], "ctl", folder)
    for number in range(1, count + 1):
        start_node(f"n{number}", folder)
    if not _until(lambda: states(folder).get("idle", 0) == count, PATIENCE_SECONDS + count):
        found = states(folder)
        raise LabError(
            f"of {count} nodes {found.get('idle', 0)} are idle ({found}); the logs are in {folder / 'log'}"
        )


def down(folder: Path = FOLDER) -> None:
    """Stop what the lab started: jobs, daemons, networks. Its logs stay until the next start."""
    for namespace in _namespaces():
        _kill(map(int, _said("ip", "netns", "pids", namespace).split()), signal.SIGKILL)
    pids = [pid for path in folder.glob("run/*.pid") if (pid := _pid(path))]
    _kill(pids, signal.SIGTERM)
    if not _until(lambda: not any(map(_is_ours, pids)), 5.0):
        _kill(pids, signal.SIGKILL)
    for namespace in _namespaces():
        subprocess.run(["ip", "netns", "del", namespace], check=False)
    for link in _links():
        subprocess.run(["ip", "link", "del", link], check=False, stderr=subprocess.DEVNULL)
    (folder / "slurm.conf").unlink(missing_ok=True)


def start_node(name: str, folder: Path = FOLDER) -> None:
    """Start the slurmd of a node."""
    (folder / "spool" / name).mkdir(parents=True, exist_ok=True)
    _daemon(["slurmd", "-N", name], name, folder, f"/var/run/netns/{PREFIX}{name}")


def kill_node(name: str, folder: Path = FOLDER) -> None:
    """What a power cut does to a node: slurmd, its steps and all they started get SIGKILL at once."""
    _kill(map(int, _said("ip", "netns", "pids", PREFIX + name).split()), signal.SIGKILL)


def states(folder: Path = FOLDER) -> dict[str, int]:
    """Number of nodes by state."""
    rows = _said(
        "timeout", "5", "sinfo", "--noheader", "--partition=main", "--format=%T %D", folder=folder
    ).splitlines()
    found: dict[str, int] = {}
    for state, number in (row.split() for row in rows):
        found[state] = found.get(state, 0) + int(number)
    return found


def running(folder: Path = FOLDER) -> int:
    """Number of slurmd of this lab that live, 0 when its controller does not."""
    if not _pid(folder / "run" / "slurmctld.pid"):
        return 0
    return sum(1 for path in folder.glob("run/n*.pid") if _pid(path))


def _write(count: int, folder: Path) -> None:
    """Make the folder anew: configuration, host names, cards."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("state", "log", "run", "spool", "cards"):
        (folder / name).mkdir(parents=True)
    names = [f"n{number}" for number in range(1, count + 1)]
    nodes = [
        f"NodeName={name} NodeAddr={_address(name)} CPUs={CARDS} RealMemory=1000 Gres=gpu:h100:{CARDS}"
        for name in names
    ]
    silent = SILENT_SECONDS + count // NODES_A_SECOND
    (folder / "slurm.conf").write_text(
        CONF.format(
            folder=folder,
            nodes="\n".join(nodes),
            silent=silent,
            answer=max(ANSWER_SECONDS, silent),
            kill=5 + count // 50,
            unkillable=60 + 5 * (count // NODES_A_SECOND),
        )
    )
    for number in range(CARDS):
        os.mknod(folder / "cards" / f"nvidia{number}", 0o20666, os.makedev(1, 3))
    (folder / "gres.conf").write_text(
        f"Name=gpu Type=h100 File={folder}/cards/nvidia[0-{CARDS - 1}]\n"
    )
    hosts = [
        "127.0.0.1 localhost",
        "10.77.0.1 ctl",
        *(f"{_address(name)} {name}" for name in names),
    ]
    (folder / "hosts").write_text("\n".join(hosts) + "\n")


def _address(name: str) -> str:
    number = int(name[1:]) - 1
    return f"10.77.{1 + number // 250}.{1 + number % 250}"


def _network(count: int) -> None:
    """A network namespace for each node, with a cable to a bridge; Linux lets a bridge have 1,023, so there is one for 500 nodes."""
    lines = [
        f"link add {BRIDGE} type bridge",
        f"addr add 10.77.0.1/16 dev {BRIDGE}",
        f"link set {BRIDGE} up",
    ]
    for rack in range((count - 1) // RACK + 1):
        lines += [f"link add {BRIDGE}{rack} type bridge", f"link set {BRIDGE}{rack} up"]
        lines += [
            f"link add lab-up{rack} type veth peer name lab-down{rack}",
            f"link set lab-up{rack} master {BRIDGE} up",
        ]
        lines += [f"link set lab-down{rack} master {BRIDGE}{rack} up"]
    for number in range(1, count + 1):
        name = f"n{number}"
        lines += [
            f"netns add {PREFIX}{name}",
            f"link add lab-{name} type veth peer name e0 netns {PREFIX}{name}",
        ]
        lines += [f"link set lab-{name} master {BRIDGE}{(number - 1) // RACK} up"]
    _ip(lines)
    if count > RACK:  # all nodes share one table of neighbours, of 1,024 by default
        for number, entries in enumerate((8192, 16384, 32768), 1):
            Path(f"/proc/sys/net/ipv4/neigh/default/gc_thresh{number}").write_text(f"{entries}\n")
    for number in range(1, count + 1):
        name = f"n{number}"
        _ip(
            [f"addr add {_address(name)}/16 dev e0", "link set e0 up", "link set lo up"],
            "-n",
            PREFIX + name,
        )


def _ip(lines: list[str], *where: str) -> None:
    done = subprocess.run(
        ["ip", *where, "-batch", "-"], input="\n".join(lines), capture_output=True, text=True
    )
    if done.returncode:
        raise LabError(f"no network for the lab: {done.stderr.strip().splitlines()[0]}")


def _munge(folder: Path) -> None:
    """A munge daemon with a key of its own."""
    home = folder / "munge"
    home.mkdir(mode=0o700)
    key = home / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    files = (
        f"--key-file={key}",
        f"--log-file={home}/log",
        f"--seed-file={home}/seed",
        f"--pid-file={folder}/run/munged.pid",
    )
    _start(["munged", "--force", f"--socket={folder}/run/munge.sock", *files], folder)


def _daemon(command: list[str], host: str, folder: Path, network: str = "") -> None:
    """Start a daemon of Slurm under a host name, in a network, with the lab's own /etc/hosts."""
    inside = (
        f"mount --bind {folder}/hosts /etc/hosts && hostname {host} && exec {' '.join(command)}"
    )
    enter = ["nsenter", f"--net={network}"] if network else []
    _start([*enter, "unshare", "--uts", "--mount", "sh", "-c", inside], folder)


def _comes_first(path: Path) -> None:
    """A daemon that all nodes wait for has a core whenever it wants one, as on a machine of its own."""
    with contextlib.suppress(PermissionError):
        for thread in Path(f"/proc/{path.read_text().strip()}/task").iterdir():
            os.sched_setscheduler(int(thread.name), os.SCHED_RR, os.sched_param(1))


def _start(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, env={**os.environ, **environment(folder)}, capture_output=True, text=True
    )
    if done.returncode:
        raise LabError(f"{command[-1]}: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")


def _said(*command: str, folder: Path = FOLDER) -> str:
    env: Mapping[str, str] = {**os.environ, **environment(folder)}
    return subprocess.run(command, env=env, capture_output=True, text=True).stdout


def _namespaces() -> list[str]:
    return [
        line.split()[0]
        for line in _said("ip", "netns", "list").splitlines()
        if line.startswith(f"{PREFIX}n")
    ]


def _links() -> list[str]:
    """What is left of the network without its namespaces: bridges, and the cables between them."""
    names = [path.name for path in Path("/sys/class/net").iterdir()]
    return [name for name in names if name.startswith((BRIDGE, "lab-up"))]


def _pid(path: Path) -> int | None:
    """The process a daemon wrote down, if it is still that daemon."""
    try:
        pid = int(path.read_text())
    except (OSError, ValueError):
        return None
    return pid if _is_ours(pid) else None


def _is_ours(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/exe").readlink().name.startswith(("slurm", "munged"))
    return False


def _kill(pids: Iterator[int] | list[int], blow: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, blow)


def _until(happened: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def main() -> int:
    """The command line of `./dev lab slurm`."""
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        if asked == "down":
            down()
        elif asked == "install":
            install()
        elif asked.isdigit() and 0 < int(asked) <= 1250:
            up(int(asked))
            print(
                f"{asked} nodes, n1 to n{asked}:  export SLURM_CONF={FOLDER}/slurm.conf   (logs: {FOLDER}/log)"
            )
        else:
            raise LabError("say how many nodes, 1 to 1250, or down, or install")
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
