"""Replies: what is answered, in each language."""

from tumen.assistant.replies.catalogue import catalogues
from tumen.assistant.replies.reply import reply, reply_finished, reply_undone

__all__ = ["catalogues", "reply", "reply_finished", "reply_undone"]
