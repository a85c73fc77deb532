"""One step over many ranks: data, tensor, expert, context and pipeline parallel."""

__all__ = []
