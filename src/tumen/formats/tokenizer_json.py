"""A `tokenizer.json`, judged before the `tokenizers` library parses it, which panics on some files and never ends on others.

A panic is no `Exception` and passes whoever catches those. What may be in it is listed: a BPE vocabulary, steps that are known,
patterns that cannot run away (no repeated repetition, no large counts), replacements that cannot blow a text up. Every refusal is
one line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tumen.core.errors import ArtifactError
from tumen.core.untrusted import Refusal, read_json, shown

MOST_TOKENS, MOST_ADDED, MOST_TOKEN_CHARS = 1 << 20, 1 << 14, 1024
MOST_STEPS, MOST_PATTERN_CHARS, MOST_COUNT, MOST_GROWTH = 16, 512, 16, 64
PARTS = {
    "normalizer": ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "Prepend", "Replace"),
    "pre_tokenizer": (
        "ByteLevel",
        "Digits",
        "Metaspace",
        "Punctuation",
        "Split",
        "Whitespace",
        "WhitespaceSplit",
    ),
    "post_processor": ("ByteLevel", "TemplateProcessing"),
    "decoder": ("BPEDecoder", "ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Strip"),
}
INNER = (
    "normalizers",
    "pretokenizers",
    "processors",
    "decoders",
)  # where a Sequence holds its steps
QUANTIFIED = re.compile(r"[*+?]|\{(\d*)(,?)(\d*)\}")


def check(path: Path, error: Refusal = ArtifactError) -> dict[str, Any]:
    """Read a tokenizer.json and check it. Returns its JSON.

    Raises:
        `error`: missing, too large, no JSON, or something in it that is not listed above.
    """
    tree = read_json(path, error)
    try:
        if not isinstance(tree, dict):
            raise ValueError("it holds no object")
        _check_model(tree.get("model"), tree.get("added_tokens") or [])
        for part, known in PARTS.items():
            steps = list(_steps(tree.get(part), part))
            if len(steps) > MOST_STEPS:
                raise ValueError(f"{part} has {len(steps)} steps ({MOST_STEPS} is the most)")
            for step in steps:
                _check_step(step, part, known)
            if math.prod(map(_growth, steps)) > MOST_GROWTH:
                raise ValueError(f"{part} may make a text more than {MOST_GROWTH} times as long")
    except ValueError as fault:
        raise error(
            f"{path}: no tokeniser that can be used: {shown(str(fault))}; make or fetch it again"
        ) from None
    return tree


def _check_model(model: Any, added: Any) -> None:
    if not isinstance(model, dict) or model.get("type") != "BPE":
        raise ValueError(
            f"its model is {_short(model.get('type') if isinstance(model, dict) else model)}, 'BPE' is needed"
        )
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, dict) or not 0 < len(vocab) <= MOST_TOKENS:
        raise ValueError(f"model.vocab is no table of 1 to {MOST_TOKENS} tokens")
    if (
        not isinstance(added, list)
        or len(added) > MOST_ADDED
        or not all(isinstance(token, dict) for token in added)
    ):
        raise ValueError(f"added_tokens is no list of at most {MOST_ADDED} tokens")
    pairs = [*vocab.items(), *((token.get("content"), token.get("id")) for token in added)]
    for token, number in pairs:
        if not isinstance(token, str) or len(token) > MOST_TOKEN_CHARS:
            raise ValueError(
                f"{_short(token)} is no token of at most {MOST_TOKEN_CHARS} characters"
            )
        if type(number) is not int or not 0 <= number < 2 * len(pairs):
            raise ValueError(f"the token {_short(token)} has the id {_short(number)}")
    if not isinstance(merges, list) or len(merges) > MOST_TOKENS or not all(map(_merges, merges)):
        raise ValueError(f"model.merges is no list of at most {MOST_TOKENS} pairs")


def _merges(merge: Any) -> bool:
    pair = merge.split(" ") if isinstance(merge, str) else merge
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(token, str) and token for token in pair)
    )


def _steps(part: Any, name: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a part, those inside sequences too."""
    if part is None:
        return
    if not isinstance(part, dict):
        raise ValueError(f"{name} is no object")
    if part.get("type") != "Sequence":
        yield part
        return
    inner = next((part[key] for key in INNER if key in part), None)
    if not isinstance(inner, list):
        raise ValueError(f"{name} is a sequence of nothing")
    for one in inner:
        yield from _steps(one, name)


def _check_step(step: Mapping[str, Any], part: str, known: tuple[str, ...]) -> None:
    if step.get("type") not in known:
        raise ValueError(f"{part} has a step {_short(step.get('type'))}; known: {', '.join(known)}")
    pattern = step.get("pattern")
    if isinstance(pattern, dict) and "Regex" in pattern:
        _check_pattern(pattern["Regex"], part)


def _check_pattern(pattern: Any, part: str) -> None:
    """Refuse a regular expression that may take for ever: a repetition within a repeated group, or a large count."""
    if not isinstance(pattern, str) or len(pattern) > MOST_PATTERN_CHARS:
        raise ValueError(
            f"{part} has a pattern that is no text of at most {MOST_PATTERN_CHARS} characters"
        )
    endless = [False]  # whether a group, innermost last, holds a repetition without an end
    at, closed = 0, False
    while at < len(pattern):
        found, was_group, closed = QUANTIFIED.match(pattern, at), closed, False
        if found:
            _check_count(found, part)
            if was_group and endless[-1] and found[0] != "?":
                raise ValueError(
                    f"{part} has a pattern with a repetition in a repetition: {_short(pattern)}"
                )
            endless[-1] = endless[-1] or found[0] in "*+" or (found[2] == "," and not found[3])
            at = found.end()
            continue
        if pattern[at] == "(":
            endless.append(False)
            at += 1 + (pattern[at + 1 : at + 2] == "?")  # no quantifier, but the kind of the group
            continue
        if pattern[at] == ")" and len(endless) > 1:
            inside = endless.pop()
            endless[-1], closed = endless[-1] or inside, True
        at = _after(pattern, at)


def _after(pattern: str, at: int) -> int:
    """Where the next piece of a pattern begins: after a class, an escaped letter, or one letter."""
    if pattern[at] == "\\":
        return at + 2
    if pattern[at] != "[":
        return at + 1
    depth = 0
    while at < len(pattern):
        depth += (pattern[at] == "[") - (pattern[at] == "]")
        at += 2 if pattern[at] == "\\" else 1
        if depth == 0:
            break
    return at


def _check_count(found: re.Match[str], part: str) -> None:
    if any(number and int(number) > MOST_COUNT for number in (found[1], found[3])):
        raise ValueError(
            f"{part} has a pattern that counts to more than {MOST_COUNT}: {_short(found[0])}"
        )


def _growth(step: Mapping[str, Any]) -> float:
    """How many times as long a step may make a text."""
    content = step.get("content", step.get("prepend", ""))
    if step.get("type") not in ("Replace", "Prepend") or not isinstance(content, str):
        return 1.0
    pattern = step.get("pattern")
    replaced = pattern.get("String") if isinstance(pattern, dict) else None
    if step["type"] == "Prepend":
        return 1.0 if len(content) <= MOST_COUNT else math.inf
    return max(
        1.0,
        len(content.encode()) / max(1, len(replaced.encode()) if isinstance(replaced, str) else 1),
    )


def _short(value: Any) -> str:
    return ascii(value)[:60]
