"""Byte-level vocabularies, as GPT-2 introduced them (github.com/openai/gpt-2, encoder.py)."""

from __future__ import annotations

BYTE_TOKENS = 256
# Bytes that occur in printable UTF-8 text; SmolLM2 lacks some of the others.
COMMON = (*range(0x20, 0x7F), *range(0x80, 0xC0), *range(0xC2, 0xF0))


def byte_letters() -> list[str]:
    """Return the letter that stands for each byte, by byte.

    A printable character of Latin-1 stands for itself; the other bytes get letters from U+0100 on.
    """
    printed = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    letters = []
    other = 256
    for byte in range(BYTE_TOKENS):
        if byte in printed:
            letters.append(chr(byte))
        else:
            letters.append(chr(other))
            other += 1
    return letters
