"""Replies in each language."""

from tumen.assistant.replies.reply import reply

__all__ = ["reply"]
