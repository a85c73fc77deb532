"""Commands: plain commands read by their words and the names of the home, without a model."""

from tumen.assistant.commands.reader import CommandReader, names_one
from tumen.assistant.commands.recent import NOTHING, Recent

__all__ = ["NOTHING", "CommandReader", "Recent", "names_one"]
