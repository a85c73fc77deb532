"""Check a `tokenizer.json` before the `tokenizers` library parses it.

The library panics on some files and never ends on others; a panic is not an `Exception`, so callers
cannot catch it. Allowed are: a BPE vocabulary, known steps, patterns without a repetition in a
repetition or a large count, and replacements that do not make a text much longer. Every refusal is
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

# Limits. The largest honest files known are well below them.
MOST_TOKENS = 1 << 20
MOST_ADDED = 1 << 14
MOST_TOKEN_CHARS = 1024
MOST_STEPS = 16  # of one part
MOST_PATTERN_CHARS = 512
MOST_COUNT = 16  # in a pattern, as in a{2,16}
MOST_GROWTH = 64  # times as long as the text before
# Parts of the pipeline, with the steps that may stand in them.
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
# Where a Sequence holds its steps.
INNER = ("normalizers", "pretokenizers", "processors", "decoders")
QUANTIFIED = re.compile(r"[*+?]|\{(\d*)(,?)(\d*)\}")


def check(path: Path, error: Refusal = ArtifactError) -> dict[str, Any]:
    """Read a tokenizer.json and check it. Returns its JSON.

    Raises:
        `error`: missing, too large, not JSON, or with something in it that is not allowed.
    """
    tree = read_json(path, error)
    try:
        return _checked(tree)
    except ValueError as fault:
        raise error(
            f"{path}: no tokeniser that can be used: {shown(str(fault))}; make or fetch it again"
        ) from None


def _checked(tree: Any) -> dict[str, Any]:
    """Return the tree if all of it is allowed."""
    if not isinstance(tree, dict):
        raise ValueError("it holds no object")
    _check_model(tree.get("model"), tree.get("added_tokens") or [])
    for part in PARTS:
        _check_part(tree.get(part), part)
    return tree


def _check_part(content: Any, part: str) -> None:
    """Check the steps of one part, one by one and together."""
    steps = list(_steps(content, part))
    if len(steps) > MOST_STEPS:
        raise ValueError(f"{part} has {len(steps)} steps ({MOST_STEPS} is the most)")
    for step in steps:
        _check_step(step, part)
    # Steps run one after the other, so their factors multiply.
    growth = math.prod(map(_growth, steps))
    if growth > MOST_GROWTH:
        raise ValueError(f"{part} may make a text more than {MOST_GROWTH} times as long")


def _check_model(model: Any, added: Any) -> None:
    """Check the vocabulary and the merges of the model, and the tokens added to it."""
    # Other kinds (Unigram, WordPiece) have no merges, and no place in a GGUF of ours.
    kind = model.get("type") if isinstance(model, dict) else model
    if not isinstance(model, dict) or kind != "BPE":
        raise ValueError(f"its model is {_short(kind)}, 'BPE' is needed")
    _check_tokens(model.get("vocab"), added)
    merges = model.get("merges")
    if not isinstance(merges, list) or len(merges) > MOST_TOKENS or not all(map(_is_merge, merges)):
        raise ValueError(f"model.merges is no list of at most {MOST_TOKENS} pairs")


def _check_tokens(vocab: Any, added: Any) -> None:
    """Check the tokens of a vocabulary and those added to it: texts, ids and their number."""
    if not isinstance(vocab, dict) or not 0 < len(vocab) <= MOST_TOKENS:
        raise ValueError(f"model.vocab is no table of 1 to {MOST_TOKENS} tokens")
    is_short_list = isinstance(added, list) and len(added) <= MOST_ADDED
    if not is_short_list or not all(isinstance(token, dict) for token in added):
        raise ValueError(f"added_tokens is no list of at most {MOST_ADDED} tokens")
    # Ids may have holes, but not large ones.
    tokens = list(vocab.items())
    tokens += [(token.get("content"), token.get("id")) for token in added]
    for token, number in tokens:
        _check_token(token, number, 2 * len(tokens))


def _check_token(token: Any, number: Any, end: int) -> None:
    """Check a token and its id, which is below `end`: the library makes a table of all ids."""
    if not isinstance(token, str) or len(token) > MOST_TOKEN_CHARS:
        raise ValueError(f"{_short(token)} is no token of at most {MOST_TOKEN_CHARS} characters")
    if type(number) is not int or not 0 <= number < end:
        raise ValueError(f"the token {_short(token)} has the id {_short(number)}")


def _is_merge(merge: Any) -> bool:
    """Whether a merge is two tokens, as "a b" or as ["a", "b"]."""
    pair = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(pair, list) or len(pair) != 2:
        return False
    return all(isinstance(token, str) and token for token in pair)


def _steps(part: Any, name: str) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of a part, those inside sequences too."""
    if part is None:
        return
    if not isinstance(part, dict):
        raise ValueError(f"{name} is no object")
    if part.get("type") != "Sequence":
        yield part
        return
    # A sequence may hold sequences, so this recurses; parse_json bounds the depth.
    inner = next((part[key] for key in INNER if key in part), None)
    if not isinstance(inner, list):
        raise ValueError(f"{name} is a sequence of nothing")
    for one in inner:
        yield from _steps(one, name)


def _check_step(step: Mapping[str, Any], part: str) -> None:
    """Check one step: its type, and its pattern if it has one."""
    known = PARTS[part]
    if step.get("type") not in known:
        raise ValueError(f"{part} has a step {_short(step.get('type'))}; known: {', '.join(known)}")
    pattern = step.get("pattern")
    # A plain text as a pattern is harmless.
    if isinstance(pattern, dict) and "Regex" in pattern:
        _check_pattern(pattern["Regex"], part)


def _check_pattern(pattern: Any, part: str) -> None:
    """Refuse a regular expression that may take for ever.

    That is: a repetition within a repeated group, or a large count.
    """
    if not isinstance(pattern, str) or len(pattern) > MOST_PATTERN_CHARS:
        raise ValueError(
            f"{part} has a pattern that is no text of at most {MOST_PATTERN_CHARS} characters"
        )
    endless = [False]  # whether a group, innermost last, holds a repetition without an end
    at = 0
    after_group = False
    while at < len(pattern):
        found = QUANTIFIED.match(pattern, at)
        if found:
            _check_count(found, part)
            # (a+)+ tries every way to cut a text: exponential time. (a+)? tries one.
            if after_group and endless[-1] and found[0] != "?":
                raise ValueError(
                    f"{part} has a pattern with a repetition in a repetition: {_short(pattern)}"
                )
            endless[-1] = endless[-1] or _is_endless(found)
            at = found.end()
            after_group = False
            continue
        after_group = pattern[at] == ")" and len(endless) > 1
        if after_group:
            # A group is endless if one inside it is.
            inside = endless.pop()
            endless[-1] = endless[-1] or inside
        if pattern[at] == "(":
            endless.append(False)
        at = _after(pattern, at)


def _is_endless(quantifier: re.Match[str]) -> bool:
    """Whether a quantifier has no upper end: *, + or {2,}."""
    if quantifier[0] in "*+":
        return True
    return quantifier[2] == "," and not quantifier[3]


def _after(pattern: str, at: int) -> int:
    """Return where the next piece begins: after a class, a group's opening or one letter."""
    letter = pattern[at]
    if letter == "\\":
        return at + 2
    if pattern.startswith("(?", at):
        # That question mark is no quantifier, but the kind of the group, as in (?:...).
        return at + 2
    if letter == "[":
        return _after_class(pattern, at)
    return at + 1


def _after_class(pattern: str, at: int) -> int:
    """Return where a class such as [a-z] ends; classes may stand in each other."""
    depth = 0
    while at < len(pattern):
        letter = pattern[at]
        if letter == "[":
            depth += 1
        elif letter == "]":
            depth -= 1
        at += 2 if letter == "\\" else 1
        if depth == 0:
            break
    return at


def _check_count(quantifier: re.Match[str], part: str) -> None:
    """Check both numbers of a quantifier such as {2,16}."""
    for number in (quantifier[1], quantifier[3]):
        if number and int(number) > MOST_COUNT:
            raise ValueError(
                f"{part} has a pattern that counts to more than {MOST_COUNT}: "
                f"{_short(quantifier[0])}"
            )


def _growth(step: Mapping[str, Any]) -> float:
    """How many times as long a step may make a text."""
    kind = step.get("type")
    content = step.get("content", step.get("prepend", ""))
    if not isinstance(content, str):
        return 1.0
    if kind == "Prepend":
        return 1.0 if len(content) <= MOST_COUNT else math.inf
    if kind == "Replace":
        # A regular expression may match a single byte.
        pattern = step.get("pattern")
        replaced = pattern.get("String") if isinstance(pattern, dict) else None
        replaced_bytes = len(replaced.encode()) if isinstance(replaced, str) else 1
        return max(1.0, len(content.encode()) / max(1, replaced_bytes))
    return 1.0


def _short(value: Any) -> str:
    """Show a value of the file in a fault, however long it is."""
    return ascii(value)[:60]
