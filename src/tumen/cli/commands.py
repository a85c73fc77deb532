"""The commands of `tumen` as a table, and the group that imports a command when it is used.

`tumen --help` and `import tumen.cli` read this table and import no room.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup

from tumen.core.errors import TumenError


class Entry(NamedTuple):
    """One line of the table."""

    group: str  # heading in `tumen --help`
    target: str  # "module:function", or "module:app" for a command with subcommands
    help: str  # one plain sentence: the first of the function's docstring


COMMANDS = {
    "run": Entry(
        "Build",
        "tumen.cli.build:run",
        "Build everything a recipe asks for, from sentences to an evaluated bundle.",
    ),
    "recipe": Entry("Build", "tumen.cli.build:recipe_app", "Show, check or describe recipes."),
    "train": Entry(
        "Build",
        "tumen.cli.build:train",
        "Train one tier as one rank, under torchrun's variables; engines call this.",
    ),
    "lineage": Entry(
        "Build",
        "tumen.cli.build:lineage",
        "Show what each artifact of a run was made from, and which of them are stale.",
    ),
    "export": Entry(
        "Build",
        "tumen.cli.build:export_checkpoint",
        "Write a checkpoint for transformers, for llama.cpp (an adapter) or for ExecuTorch.",
    ),
    "import": Entry(
        "Build",
        "tumen.cli.build:import_checkpoint",
        "Read a pretrained model as a checkpoint that a tier can start from.",
    ),
    "plan": Entry(
        "Plan",
        "tumen.cli.planning:app",
        "Plan a training run: layout, memory, time, failures and cost.",
    ),
    "fit": Entry(
        "Plan",
        "tumen.cli.device_fit:fit",
        "Predict size, peak memory, first-token time and tokens per second on a device.",
    ),
    "launch": Entry(
        "Cluster", "tumen.cli.clusters:launch", "Start a tier's training on an engine."
    ),
    "status": Entry("Cluster", "tumen.cli.clusters:status", "Show the state of a run's jobs."),
    "logs": Entry("Cluster", "tumen.cli.clusters:logs", "Print the output of a job."),
    "cancel": Entry(
        "Cluster", "tumen.cli.clusters:cancel", "Stop a job and everything it started."
    ),
    "nodes": Entry(
        "Cluster",
        "tumen.cli.clusters:nodes",
        "List the engine's nodes: their accelerators, and whether they take work.",
    ),
    "drain": Entry(
        "Cluster",
        "tumen.cli.clusters:drain",
        "Stop giving a node new work; its running jobs continue.",
    ),
    "watch": Entry(
        "Cluster",
        "tumen.cli.clusters:watch",
        "Monitor a training: detect faults, recover, and log both to RUN/jobs/TIER/watch.jsonl.",
    ),
    "resize": Entry(
        "Cluster", "tumen.cli.clusters:resize", "Give a watched training more or fewer ranks."
    ),
    "drill": Entry(
        "Cluster",
        "tumen.cli.reports:drill",
        "Inject a fault into a training of this machine, and report how it was healed.",
    ),
    "goodput": Entry(
        "Cluster",
        "tumen.cli.reports:goodput",
        "Report where the accelerator time of a training went, beside what the plan expects.",
    ),
    "metrics": Entry(
        "Cluster",
        "tumen.cli.reports:metrics",
        "Export a run's training metrics to TensorBoard or Prometheus, live or afterwards.",
    ),
    "eval": Entry(
        "Evaluate",
        "tumen.cli.evaluation:eval_bundle",
        "Show a bundle's scorecard, or evaluate the bundle on a public data set.",
    ),
    "ablate": Entry(
        "Evaluate",
        "tumen.cli.evaluation:ablate",
        "Train a recipe's variants at one budget over several seeds, and compare them.",
    ),
    "keys": Entry("Release", "tumen.cli.releasing:keys", "Make a key pair to sign bundles with."),
    "sign": Entry(
        "Release",
        "tumen.cli.releasing:sign",
        "Sign a bundle and its scorecard; a newer signature replaces the older one.",
    ),
    "promote": Entry(
        "Release",
        "tumen.cli.releasing:promote",
        "Make a bundle live in a slot, if it passes its gate and is not worse than the live one.",
    ),
    "rollback": Entry(
        "Release",
        "tumen.cli.releasing:rollback",
        "Make the bundle live again that was live before.",
    ),
    "talk": Entry("Use", "tumen.cli.using:talk", "Talk to a home; works with the network off."),
    "serve": Entry(
        "Use",
        "tumen.cli.using:serve",
        "Serve a bundle over OpenAI's HTTP API, with the cloud tier for uncertain answers.",
    ),
}

# Verbs and options of earlier versions -> what they are called now.
RENAMED_COMMANDS = {"arms": "ablate", "ledger": "goodput", "score": "eval"}
RENAMED_OPTIONS = {"--exam": "--suite", "--new-exam": "--new-suite", "--quantise": "--quantize"}


class RenamedError(TumenError):
    """A command or option that has another name now."""

    exit_code = 2


class CommandGroup(TyperGroup):
    """The group `tumen`: help by headings, and one line for a name of an earlier version."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _LoadedOnUse()

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names without importing the commands."""
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands under their headings, in the order of the table."""
        # Padded names make the columns of all headings start at the same place.
        width = max(len(name) for name in COMMANDS)
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, entry in COMMANDS.items():
            row = (f"{name:<{width}}", entry.help)
            groups.setdefault(entry.group, []).append(row)
        for heading, rows in groups.items():
            with formatter.section(heading):
                formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first word names.

        Raises:
            RenamedError: the command or one of its options has another name now.
        """
        reject_old_names(args)
        return super().resolve_command(ctx, args)


def reject_old_names(args: Sequence[str]) -> None:
    """Check a command line for names of earlier versions.

    Raises:
        RenamedError: names the new name.
    """
    command = args[0] if args else ""
    # Click would only say that there is no such command.
    if command in RENAMED_COMMANDS:
        new = RENAMED_COMMANDS[command]
        raise RenamedError(f"`tumen {command}` is now `tumen {new}`; see `tumen {new} --help`")
    for word in args[1:]:
        if word == "--":  # what follows is text
            return
        option = word.partition("=")[0]
        if option in RENAMED_OPTIONS:
            new = RENAMED_OPTIONS[option]
            raise RenamedError(f"`{option}` is now `{new}`; see `tumen {command} --help`")


class _LoadedOnUse(MutableMapping[str, Any]):
    """Commands by name; the module of one is imported when it is taken out."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = _load(name, COMMANDS[name].target)
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


def _load(name: str, target: str) -> Any:
    """Return the click command behind a line of the table."""
    module, _, attribute = target.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if isinstance(found, typer.Typer):  # it has subcommands
        return typer.main.get_command(found)
    # A function becomes a command only inside an app.
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name)(found)
    return typer.main.get_command(app)
