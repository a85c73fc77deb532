"""The texts are true: what they show runs, what they count is sourced, what they generate is fresh."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.docs import cli, numbers, rooms, scorecard

ROOT = rooms.ROOT
PAGES = numbers.pages()
NEEDS_A_RUN = re.compile(r"<!-- needs a run: \S.* -->")
ON_A_BUNDLE = "<!-- runs on a bundle -->"
FENCE = re.compile(
    r"(?P<mark>[^\n]*)\n```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
PATIENCE_SECONDS = 180  # of a command; machines are shared
SET_UP = ("./dev ", "git clone ", "cd ", "pip install ")


@dataclass(frozen=True)
class Fence:
    """A block of code of a page, and the line above it."""

    page: Path
    kind: str
    text: str
    mark: str

    @property
    def runs(self) -> bool:
        """Whether it runs in an empty folder."""
        return self.mark != ON_A_BUNDLE and not NEEDS_A_RUN.fullmatch(self.mark)


def fences(page: Path) -> list[Fence]:
    """All fences of a page, in order."""
    text = "\n" + page.read_text("utf-8")
    return [
        Fence(page, found["kind"], found["text"], found["mark"].strip())
        for found in FENCE.finditer(text)
    ]


FENCES = [fence for page in PAGES for fence in fences(page)]


def name_of(fence: Fence) -> str:
    return f"{fence.page.name}-{fence.text.splitlines()[0][:50]}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the recipes in it, and this Python's commands on the path."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(f.kind == "python" for f in fences(page))],
    ids=lambda page: page.name,
)
def test_python_blocks_run_in_order(page: Path, place: Path) -> None:
    words: dict[str, object] = {"__name__": "page"}
    for fence in fences(page):
        if fence.kind == "python" and fence.runs:
            exec(compile(fence.text, f"{page.name}: {fence.text.splitlines()[0]}", "exec"), words)


def fits(said: str, shown: str) -> bool:
    """Whether a command said what a page shows; `...` stands for anything."""
    pattern = r".*?".join(map(re.escape, shown.strip().split("...")))
    return not shown.strip() or bool(re.fullmatch(pattern, said.strip(), re.DOTALL))


@pytest.mark.parametrize(
    "fence", [f for f in FENCES if f.kind == "console" and f.runs], ids=name_of
)
def test_console_blocks_say_what_they_show(fence: Fence, place: Path) -> None:
    for command, shown in re.findall(r"^\$ ([^\n]*)\n((?:(?!\$ ).*\n)*)", fence.text, re.MULTILINE):
        done = subprocess.run(
            command, shell=True, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert fits(done.stdout, shown), f"{command} said:\n{done.stdout}"


@pytest.fixture
def with_a_run(whole: Path, place: Path) -> Path:
    """The same folder with the paths that pages speak of: the tiny run is all of them."""
    for name in ("v2", "pocket"):
        # one tier on the device, as the pocket recipe has it
        left = shutil.ignore_patterns("bundle-cloud")
        shutil.copytree(whole, place / "runs" / name, ignore=left)
    shutil.copytree(whole, place / "runs" / "family")
    shutil.copytree(whole / "bundle-device", place / "bundle-device")
    return place


def asked_once(command: str) -> None:
    """Start a command that goes on, ask its server or wait for its files once, and stop it."""
    port = free_port()
    command = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", command)
    written = [Path(path) for path in re.findall(r"--(?:tensorboard|textfile) (\S+)", command)]

    def worked() -> bool:
        return all(path.exists() for path in written) and (bool(written) or answers(port))

    with subprocess.Popen(shlex.split(command), stderr=subprocess.PIPE, text=True) as server:
        try:
            until(lambda: worked() or server.poll() is not None)
            assert server.poll() is None, f"{command}: {server.stderr and server.stderr.read()}"
        finally:
            server.terminate()


def answers(port: int) -> bool:
    """Whether /metrics answers on this port."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as found:
            return bool(found.status == 200)
    except OSError:
        return False


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.mark.parametrize(
    "fence", [f for f in FENCES if f.kind == "console" and f.mark == ON_A_BUNDLE], ids=name_of
)
def test_console_blocks_run_on_a_bundle(fence: Fence, with_a_run: Path) -> None:
    """What they show is of a trained model, so the output is not compared."""
    for command in re.findall(r"^\$ ([^\n]*)$", fence.text, re.MULTILINE):
        if "--prometheus" in command or "--follow" in command:
            asked_once(command)
            continue
        done = subprocess.run(
            command,
            shell=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_not_run_says_why(page: Path) -> None:
    marks = [fence.mark for fence in fences(page) if "needs a run" in fence.mark]
    assert all(NEEDS_A_RUN.fullmatch(mark) for mark in marks)


@pytest.mark.parametrize("fence", [f for f in FENCES if f.kind == "console"], ids=name_of)
def test_console_blocks_name_verbs_and_options_that_exist(fence: Fence) -> None:
    known = {path[1]: rooms_of for path, rooms_of in cli.verbs(cli.tree()) if len(path) == 2}
    for verb, rest in re.findall(r"^\$ tumen (\w+)(.*)", fence.text, re.MULTILINE):
        assert verb in known
        below = [known[verb], *getattr(known[verb], "commands", {}).values()]
        options = {
            option for command in below for parameter in command.params for option in parameter.opts
        }
        assert set(re.findall(r"--[\w-]+", rest)) <= options


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_fence_is_of_a_kind_that_is_checked(page: Path) -> None:
    for fence in fences(page):
        assert fence.kind in ("python", "console", "sh", "text", "toml")
        if fence.kind == "sh":
            assert all(line.startswith(SET_UP) for line in fence.text.splitlines())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    lost = [
        link for link in LINK.findall(page.read_text("utf-8")) if not (page.parent / link).exists()
    ]
    assert not lost


def test_the_readme_begins_with_the_two_commands_and_maps_every_room() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert re.findall(r"^\./dev \w+", fences(ROOT / "README.md")[0].text, re.MULTILINE) == [
        "./dev run",
        "./dev test",
    ]
    for room in rooms.rooms():
        assert re.search(
            rf"^\| `src/tumen/{room}` \|.*\]\(docs/{room}\.md\) \|$", text, re.MULTILINE
        ), f"{room} is not on the map"


def test_generated_pages_are_fresh() -> None:
    assert cli.PAGE.read_text("utf-8") == cli.reference(cli.tree())
    for room in rooms.rooms():
        page = ROOT / "docs" / f"{room}.md"
        if room != "cli":
            assert page.read_text("utf-8") == rooms.page(room, page.read_text("utf-8"))
    readme = (ROOT / "README.md").read_text("utf-8")
    assert readme == scorecard.filled(readme, scorecard.table(scorecard.read(scorecard.RESULT)))


def test_an_undocumented_verb_fails() -> None:
    import typer

    app = typer.Typer()

    @app.command("mute")
    def mute(loud: bool = False) -> None: ...

    @app.command("said", help="Says something.")
    def said() -> None: ...

    assert (
        len(list(cli.silent(("tumen", "mute"), typer.main.get_command(app).commands["mute"]))) == 2
    )  # type: ignore[attr-defined]
    with pytest.raises(SystemExit, match="mute: no docstring"):
        cli.reference(typer.main.get_command(app))


def test_what_stands_below_the_mark_of_a_page_is_kept() -> None:
    old = f"anything\n{rooms.END}\n\nby hand\n"
    assert rooms.page("core", old).endswith(f"{rooms.END}\n\nby hand\n")
    assert rooms.page("core", None).startswith("<!-- generated")


CLAIMS = (
    "It takes 5.9 ms.",
    "It takes 5.9 ms. *fast* `cmd`",
    "It takes 7 ms (*measured*).",
    "*measured* by `x`\n\nand 5 MB",
    "Right in 97 % of all.",
    "3x faster",
    "3× faster",
    "needs 24GiB",
    "12,000 tokens/s",
    "40k tokens/s",
    "10 minutes",
    "costs $3",
    "* first\n* then 12 hours",
    "| a | b |\n| --- | --- |\n| x | 7 ms |",
    "```text\n7 ms\n```",
)
HONEST = (
    "It takes 5.9 ms (*measured* by `python x.py`).",
    "*Published*: 21 % (arXiv 2405.04434).",
    "*Simulated* in [log](log.md): 3 days.",
    "*Measured* by `x`:\n\n| a |\n| --- |\n| 7 ms |",
    "| a |\n| --- |\n| 7 ms |\n\n*Measured*, ad-hoc\nscript, not kept.",
    "<!-- setting -->\nAt most 10 minutes.",
    "At most 10 minutes. <!-- setting -->",
    "three languages, 60 devices, 4 layers, 32x128 tokens",
    "say `five minutes`, `5 min`",
    "Python 3.11, torch 2.13.0, 2026-11-22",
)


@pytest.mark.parametrize("text", CLAIMS)
def test_a_number_without_a_source_is_a_fault(text: str) -> None:
    assert len(list(numbers.faults(text, "page"))) == 1


@pytest.mark.parametrize("text", HONEST)
def test_a_number_with_its_source_is_none(text: str) -> None:
    assert not list(numbers.faults(text, "page"))


def test_all_pages_say_where_their_numbers_come_from() -> None:
    assert not [
        fault for path in PAGES for fault in numbers.faults(path.read_text("utf-8"), path.name)
    ]


def result(shortfalls: list[str]) -> dict[str, object]:
    """Results as the benchmark writes them, small."""
    row = {"n": 30, "exact": 0.5, "low": 0.33, "high": 0.67, "false_acts": 0.0, "invented": 0}
    column = {
        "all": row,
        "en": row,
        "zh": row,
        "de": row,
        "lights": {**row, "exact": 0.25},
        "not home": {**row, "false_acts": None},
    }
    seconds = {"device": 0.004, "cloud": 0.008, "reference": 0.01}
    timed = {
        "seconds_p50": seconds,
        "seconds_p95": seconds,
        "agreement": {"device": 0.99, "cloud": 1.0},
    }
    return {
        "command": "python benchmarks/pocket.py", "date": "2026-11-22", "seconds": 500.0, "peak_bytes": 3e9, "recipe_hash": "old",
        "machine": {"cpu": "one", "cores": 2, "threads": 2, "load_before": 0.1},
        "versions": {"python": "3.11", "torch": "2", "xllamacpp": "1"},
        "scorecard": {
            "columns": {"device": column, "cloud": column, "reference": column},
            "bytes": {"device": 3_000_000, "cloud": 9_000_000}, "shortfalls": shortfalls,
            "classes": {"lights": {"high": 0.9, "reached": False}, "timers": {"high": 1.1, "reached": True}},
        },
        "facts": {"bundle-device/scorecard": timed},
    }  # fmt: skip


def test_the_scorecard_is_written_with_its_source_and_its_weak_rows() -> None:
    text = scorecard.table(result(["exact actions in en: 50.0%, the floor is 95.0%"]))
    assert "| exact actions, English | 50.0 % [33.0, 67.0] of 30 |" in text
    assert "lights 25.0 % of 30" in text
    assert "in 1 of 2 classes; not in lights (surely below the cloud)." in text
    assert "not passed: exact actions in en" in text
    assert "The recipe has changed since" in text
    assert not list(numbers.faults(text, "README.md"))
    page = scorecard.filled(f"a\n{scorecard.BEGIN}\nold\n{scorecard.END}\nb\n", text)
    assert scorecard.filled(page, text) == page
    assert "old" not in page


def test_what_was_not_measured_is_not_claimed() -> None:
    assert scorecard.table(None).startswith("Not measured yet")
    with pytest.raises(SystemExit, match="scorecard:begin"):
        scorecard.filled("no marks", "")


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path),
    ]
    built = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "story" / "index.html").exists()
