"""The vocabulary of an outside model: byte-level BPE (GPT-2's kind), from a GGUF's metadata or a folder's tokenizer.json.

Text is cut into words by the model's own rule (`pre`, llama.cpp's name of it), each letter of a word is one byte, and merges join
them in their order. Its control tokens are never found in a text; three of them open a prompt, part sentence from action, and
end. `trimmed` leaves out tokens that the data does not need, without changing how it is cut.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, ValidationError

from tumen.core import untrusted
from tumen.core.errors import ArtifactError, InputError
from tumen.core.extras import optional
from tumen.core.shape import Frozen
from tumen.formats import COMMON, Header, byte_letters, header_of, is_gguf, tokenizer_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

tokenizers = optional("tokenizers", "reading a model's vocabulary")
FILE = "vocabulary.json"
CONTROL, USER_DEFINED = 3, 4  # gguf's types of tokens that are not reached by merging
LINE = "Ċ"  # the letter of a line's end, which no normalised sentence has
# Which control tokens open a prompt, part sentence from action, and end; the first that a vocabulary has.
BEGINS = ("<|im_start|>", "<|begin_of_text|>", "<｜begin▁of▁sentence｜>", "<s>")
PARTS = ("<|im_end|>", "<|end_header_id|>", "<｜Assistant｜>")
ENDS = ("<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "</s>")

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def _letters(words: bool) -> PreTokenizer:
    made: PreTokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=words
    )
    return made


def _split(pattern: str) -> PreTokenizer:
    made: PreTokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
            _letters(words=False),
        ]
    )
    return made


PRE: dict[str, Callable[[], PreTokenizer]] = {
    "gpt-2": lambda: _letters(words=True),
    "smollm": lambda: tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.Digits(individual_digits=True), _letters(words=True)]
    ),
    "llama-bpe": lambda: _split(LLAMA3),
    "qwen2": lambda: _split(QWEN2),
}
WHOLE_WORDS = ("llama-bpe",)  # a word that is a token is taken whole, whatever its merges say


Row = int | tuple[int, ...]


class Vocabulary(Frozen):
    """One vocabulary.

    Attributes:
        tokens: by id, in letters of bytes; control tokens as they are written.
        merges: "left right", the first is merged first.
        control: ids that are no text.
        pre: how text is cut into words.
        begin, do, end: tokens that open a prompt, part sentence from action, and end the action.
        added: how many of the last tokens are our own: pieces of an action that no merge makes.
        rows: where each token lies in the embedding of the model it comes from (of one of our own: what it is the mean of);
            None: all of them, in order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    tokens: tuple[str, ...]
    merges: tuple[str, ...]
    control: tuple[int, ...]
    pre: str
    begin: str
    do: str
    end: str
    added: int = 0
    rows: tuple[Row, ...] | None = None

    def tokenizer(self) -> Tokenizer:
        """Its tokeniser, which finds no control token in any text."""
        ids = {token: number for number, token in enumerate(self.tokens)}
        pairs = [
            (left, right) for left, _, right in (merge.partition(" ") for merge in self.merges)
        ]
        made: Tokenizer = tokenizers.Tokenizer(
            tokenizers.models.BPE(ids, pairs, ignore_merges=self.pre in WHOLE_WORDS)
        )
        made.pre_tokenizer = PRE[self.pre]()
        made.decoder = tokenizers.decoders.ByteLevel()
        return made

    def trimmed(self, texts: Iterable[str], most: int) -> Vocabulary:
        """Only the tokens that some texts need, the first `most` merges, all bytes, and the three control tokens.

        A text is cut as before: whatever stands at any moment while it is merged is kept, so the same merges apply in the
        same order. That is checked word by word all the same.

        Raises:
            InputError: a word is cut otherwise.
        """
        before = self.tokenizer()
        words = {word for text in texts for word, _ in before.pre_tokenizer.pre_tokenize_str(text)}
        kept = {
            *byte_letters(),
            self.begin,
            self.do,
            self.end,
            *(merge.replace(" ", "") for merge in self.merges[:most]),
        }
        ranks = {merge: rank for rank, merge in enumerate(self.merges)}
        known = set(self.tokens)
        for word in words:
            kept.update(_standing(word, ranks))
            kept.update({word} & known if self.pre in WHOLE_WORDS else ())
        less = self._only(kept)
        after = less.tokenizer()
        wrong = next(
            (word for word in words if _merged(before, word) != _merged(after, word)), None
        )
        if wrong is not None:
            raise InputError(f"trimmed, {wrong!r} would be cut otherwise; leave tokenizer.trim out")
        return less

    def with_tokens(self, pieces: Iterable[str]) -> Vocabulary:
        """One token more for each piece of an action that is none; it begins as the mean of the tokens it replaces."""
        made, known = self.tokenizer(), set(self.tokens)
        ours = [piece for piece in pieces if piece not in known]
        rows = self.rows or tuple(range(len(self.tokens)))
        means = [
            tuple(_plainly(rows[number]) for number in made.encode(piece).ids) for piece in ours
        ]
        tokens = (*self.tokens, *ours)
        return self.model_copy(
            update={"tokens": tokens, "added": len(ours), "rows": (*rows, *means)}
        )

    def _only(self, kept: set[str]) -> Vocabulary:
        places = [number for number, token in enumerate(self.tokens) if token in kept]
        tokens = tuple(self.tokens[number] for number in places)
        merges = tuple(
            merge for merge in self.merges if {*merge.split(" "), merge.replace(" ", "")} <= kept
        )
        control = tuple(number for number, place in enumerate(places) if place in set(self.control))
        rows = tuple(places) if self.rows is None else tuple(self.rows[place] for place in places)
        return self.model_copy(
            update={"tokens": tokens, "merges": merges, "control": control, "rows": rows}
        )

    def save(self, folder: Path) -> None:
        """Write `vocabulary.json`."""
        (folder / FILE).write_text(self.model_dump_json(), "utf-8")

    @classmethod
    def load(cls, folder: Path) -> Vocabulary:
        """Read `vocabulary.json` of an artifact.

        Raises:
            ArtifactError: missing or damaged.
        """
        try:
            return cls.model_validate(untrusted.read_json(folder / FILE))
        except ValidationError:
            raise ArtifactError(f"{folder / FILE}: damaged; run the recipe again") from None


def _plainly(row: Row) -> int:
    if isinstance(row, tuple):
        raise InputError("the vocabulary has tokens of our own already")
    return row


def _merged(tokenizer: Tokenizer, word: str) -> list[str]:
    """Tokens of one word in letters, which is not cut again."""
    return [token.value for token in tokenizer.model.tokenize(word)]


def _standing(word: str, ranks: dict[str, int]) -> Iterator[str]:
    """Everything that stands at some moment while a word is merged: the leftmost pair of the lowest rank comes next."""
    parts = list(word)
    while len(parts) > 1:
        found = [
            (rank, at)
            for at in range(len(parts) - 1)
            if (rank := ranks.get(f"{parts[at]} {parts[at + 1]}")) is not None
        ]
        if not found:
            return
        _, at = min(found)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        yield parts[at]


def vocabulary_of(path: Path) -> Vocabulary:
    """The vocabulary of an outside model: a GGUF, a folder with tokenizer.json, or what `tumen import` made of one.

    Raises:
        InputError: there is none, or it is of another kind.
    """
    if is_gguf(path):
        return _of_gguf(header_of(path), path)
    if (path / FILE).is_file():
        return Vocabulary.load(path)
    return _of_folder(path)


def refuse_other(vocabulary: Vocabulary, path: Path) -> None:
    """Hold a tokeniser against the model that a tier starts from.

    Raises:
        InputError: the model's rows mean other tokens.
    """
    theirs = vocabulary_of(path).tokens
    rows = vocabulary.rows or tuple(range(len(vocabulary.tokens)))
    for token, row in zip(vocabulary.tokens, rows, strict=True):
        if isinstance(row, int) and (row >= len(theirs) or theirs[row] != token):
            raise InputError(
                f"{path}: its token {row} is not the tokeniser's {token!r}; set tokenizer.start to it"
            )


def _of_gguf(header: Header, path: Path) -> Vocabulary:
    pairs = {
        key.removeprefix("tokenizer.ggml."): value
        for key, value in header.pairs.items()
        if key.startswith("tokenizer.")
    }
    if pairs["model"] != "gpt2":
        raise InputError(
            f"{path}: its vocabulary is of the kind {pairs['model']!r}; only byte-level BPE ('gpt2') is read"
        )
    control = [
        number for number, kind in enumerate(pairs["token_type"]) if kind in (CONTROL, USER_DEFINED)
    ]
    told = [pairs["tokens"][pairs[f"{name}_token_id"]] for name in ("bos", "eos")]
    return _vocabulary(pairs["tokens"], pairs["merges"], control, str(pairs.get("pre")), told, path)


def _of_folder(folder: Path) -> Vocabulary:
    path = folder / "tokenizer.json"
    tree = tokenizer_json.check(path, InputError)
    parse = tokenizers.Tokenizer.from_str  # outside of try: the package may be missing
    try:
        made = parse(json.dumps(tree))
        tree = json.loads(made.to_str())
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{path}: no tokeniser in it ({error})") from None
    model = tree["model"]
    if model["type"] != "BPE" or not {byte_letters()[byte] for byte in COMMON} <= set(
        model["vocab"]
    ):
        raise InputError(
            f"{path}: its vocabulary is no byte-level BPE, which is the only kind that is read"
        )
    if (tree["normalizer"] or {"type": "NFC"})["type"] != "NFC":  # sentences are NFKC already
        raise InputError(
            f"{path}: it changes texts before it cuts them ({tree['normalizer']['type']}); that is not read"
        )
    added = {token["content"]: token["id"] for token in tree["added_tokens"]}
    ids = {number: token for token, number in {**model["vocab"], **added}.items()}
    if sorted(ids) != list(range(len(ids))):
        raise InputError(f"{path}: its ids have gaps")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return _vocabulary(
        [ids[number] for number in range(len(ids))],
        merges,
        sorted(added.values()),
        _pre_of(tree, path),
        (),
        path,
    )


def _pre_of(tree: dict[str, Any], path: Path) -> str:
    """llama.cpp's name of how a tokenizer.json cuts text into words."""
    for name, make in PRE.items():
        if _plain(json.loads(make().__getstate__())) == _plain(tree["pre_tokenizer"]):
            return name
    raise InputError(
        f"{path}: cuts text into words by a rule that is not known here; known: {', '.join(PRE)}"
    )


def _plain(tree: Any) -> Any:
    """A pre-tokeniser's JSON without what changes no token."""
    if isinstance(tree, dict):
        return {name: _plain(value) for name, value in tree.items() if name != "trim_offsets"}
    return [_plain(one) for one in tree] if isinstance(tree, list) else tree


def _vocabulary(
    tokens: Sequence[str],
    merges: Sequence[str],
    control: Sequence[int],
    pre: str,
    told: Sequence[str],
    path: Path,
) -> Vocabulary:
    if pre not in PRE:
        raise InputError(
            f"{path}: cuts text into words by {pre!r}, which is not known here; known: {', '.join(PRE)}"
        )
    named = [tokens[number] for number in control]
    end = _first((*ENDS, *told[1:], *named), named, ())
    begin = _first((*BEGINS, *told[:1], *named), named, (end,))
    do = _first((*PARTS, *named, LINE), [*named, LINE], (begin, end))
    if not begin or not end:
        raise InputError(
            f"{path}: has {len(named)} control tokens; two are needed, to begin and to end"
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


def _first(wanted: Iterable[str], there: Sequence[str], taken: Sequence[str]) -> str:
    return next((token for token in wanted if token in there and token not in taken), "")
