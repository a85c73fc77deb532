"""Read the vocabulary of a pretrained model from a GGUF or from a folder with tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tumen.core.errors import InputError
from tumen.core.extras import optional
from tumen.data.tokenizer.unigram import UnigramVocabulary, unigram_of_e5, unigram_of_folder
from tumen.data.tokenizer.vocabulary import FILE, Vocabulary
from tumen.data.tokenizer.word_rules import WORD_RULES
from tumen.formats import CONFIG, Header, e5_file, header_of, is_gguf, read_json, tokenizer_json
from tumen.formats.byte_level import COMMON, byte_letters

tokenizers = optional("tokenizers", "reading a model's vocabulary")
CONTROL_TYPES = (3, 4)  # GGUF's token types "control" and "user defined": not reached by merging
NEWLINE = "Ċ"  # the byte letter of a line end, which no normalized sentence holds
# Control tokens for begin, separator and end of a prompt: the first that a vocabulary has is used.
BEGIN_TOKENS = ("<|im_start|>", "<|begin_of_text|>", "<｜begin▁of▁sentence｜>", "<s>")
SEPARATORS = ("<|im_end|>", "<|end_header_id|>", "<｜Assistant｜>")
END_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "</s>")


def read_vocabulary(path: Path) -> Vocabulary | UnigramVocabulary:
    """Read the vocabulary of a pretrained model.

    Args:
        path: a GGUF, a folder with tokenizer.json, an artifact of `tumen import`, or an encoder.

    Raises:
        InputError: there is none, or it is not a byte-level BPE with a known word rule, nor the
            Unigram pieces of an encoder.
    """
    if e5_file.is_e5(path):
        return unigram_of_e5(path)
    if (path / CONFIG).is_file() and read_json(path / CONFIG).get("model_type") == "bert":
        return unigram_of_folder(path)
    if is_gguf(path):
        return _from_gguf(header_of(path), path)
    if (path / FILE).is_file():
        return Vocabulary.load(path)
    return _from_folder(path)


def require_same_vocabulary(vocabulary: Vocabulary | UnigramVocabulary, path: Path) -> None:
    """Check that a tokenizer's tokens are those of the model that a tier starts from.

    Raises:
        InputError: an embedding row of the model belongs to another token.
    """
    theirs = read_vocabulary(path).tokens
    rows = vocabulary.rows or tuple(range(len(vocabulary.tokens)))
    for token, row in zip(vocabulary.tokens, rows, strict=True):
        if not isinstance(row, int):
            continue
        if row >= len(theirs) or theirs[row] != token:
            raise InputError(
                f"{path}: its token {row} is not the tokenizer's {token!r}; "
                "set tokenizer.init_from to it"
            )


def _from_gguf(header: Header, path: Path) -> Vocabulary:
    prefix = "tokenizer.ggml."
    pairs = {
        key.removeprefix(prefix): value
        for key, value in header.pairs.items()
        if key.startswith("tokenizer.")
    }
    if pairs["model"] != "gpt2":
        raise InputError(
            f"{path}: its vocabulary is of the kind {pairs['model']!r}; "
            "only byte-level BPE ('gpt2') can be read"
        )
    tokens = pairs["tokens"]
    control = [id_ for id_, kind in enumerate(pairs["token_type"]) if kind in CONTROL_TYPES]
    return _vocabulary(
        tokens,
        pairs["merges"],
        control,
        str(pairs.get("pre")),
        path,
        bos=tokens[pairs["bos_token_id"]],
        eos=tokens[pairs["eos_token_id"]],
    )


def _from_folder(folder: Path) -> Vocabulary:
    path = folder / "tokenizer.json"
    tree = _checked_tree(path)
    model = tree["model"]
    added = {token["content"]: token["id"] for token in tree["added_tokens"]}
    tokens = {number: token for token, number in {**model["vocab"], **added}.items()}
    if sorted(tokens) != list(range(len(tokens))):
        raise InputError(f"{path}: its token ids have gaps")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return _vocabulary(
        [tokens[number] for number in range(len(tokens))],
        merges,
        sorted(added.values()),
        _word_rule_of(tree, path),
        path,
    )


def _checked_tree(path: Path) -> dict[str, Any]:
    """Read a tokenizer.json as its library writes it, and check that its kind can be read.

    Raises:
        InputError: not a tokenizer, not a byte-level BPE, or it changes texts.
    """
    raw = tokenizer_json.check(path, InputError)
    parse = tokenizers.Tokenizer.from_str  # outside of try: the package may be missing
    try:
        tree: dict[str, Any] = json.loads(parse(json.dumps(raw)).to_str())
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{path}: not a tokenizer ({error})") from None
    model = tree["model"]
    letters = {byte_letters()[byte] for byte in COMMON}
    if model["type"] != "BPE" or not letters <= set(model["vocab"]):
        raise InputError(f"{path}: not a byte-level BPE, the only kind that can be read")
    # NFC changes nothing: sentences are NFKC already.
    normalizer = tree["normalizer"]
    if normalizer and normalizer["type"] != "NFC":
        raise InputError(
            f"{path}: its normalizer {normalizer['type']} changes texts; that is not supported"
        )
    return tree


def _word_rule_of(tree: dict[str, Any], path: Path) -> str:
    """Return the name of `WORD_RULES` whose pre-tokenizer equals that of a tokenizer.json."""
    wanted = _without_offsets(tree["pre_tokenizer"])
    for name, build in WORD_RULES.items():
        if _without_offsets(json.loads(build().__getstate__())) == wanted:
            return name
    raise InputError(
        f"{path}: its rule to cut a text into words is unknown; known: {', '.join(WORD_RULES)}"
    )


def _without_offsets(tree: Any) -> Any:
    """Return a pre-tokenizer's JSON without the fields that change no token."""
    if isinstance(tree, dict):
        return {
            name: _without_offsets(value) for name, value in tree.items() if name != "trim_offsets"
        }
    if isinstance(tree, list):
        return [_without_offsets(item) for item in tree]
    return tree


def _vocabulary(
    tokens: Sequence[str],
    merges: Sequence[str],
    control: Sequence[int],
    pre: str,
    path: Path,
    *,
    bos: str | None = None,
    eos: str | None = None,
) -> Vocabulary:
    """Choose the begin, separator and end token; `bos` and `eos` are those a GGUF names."""
    if pre not in WORD_RULES:
        raise InputError(
            f"{path}: cuts a text into words by the unknown rule {pre!r}; "
            f"known: {', '.join(WORD_RULES)}"
        )
    control_tokens = [tokens[number] for number in control]
    begins = [*BEGIN_TOKENS, *_given(bos), *control_tokens]
    ends = [*END_TOKENS, *_given(eos), *control_tokens]
    end = _first(ends, control_tokens, taken=())
    begin = _first(begins, control_tokens, taken=(end,))
    separators = [*SEPARATORS, *control_tokens, NEWLINE]
    do = _first(separators, [*control_tokens, NEWLINE], taken=(begin, end))
    if not begin or not end:
        raise InputError(
            f"{path}: has {len(control_tokens)} control tokens; two are needed, to begin and to end"
        )
    return Vocabulary(
        tokens=tuple(tokens),
        merges=tuple(merges),
        control=tuple(control),
        pre=pre,
        begin=begin,
        do=do,
        end=end,
    )


def _given(token: str | None) -> list[str]:
    return [] if token is None else [token]


def _first(wanted: Iterable[str], available: Sequence[str], taken: Sequence[str]) -> str:
    """Return the first wanted token that is available and not taken, or ""."""
    for token in wanted:
        if token in available and token not in taken:
            return token
    return ""
