"""Replies: what is answered, in each language."""

from tumen.assistant.replies.reply import reply, reply_finished, reply_undone

__all__ = ["reply", "reply_finished", "reply_undone"]
