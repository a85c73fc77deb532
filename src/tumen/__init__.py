"""tumen: one recipe, from a cluster plan to a lamp that switches on. Start at `tumen --help`."""

__version__ = "0.1.0"
