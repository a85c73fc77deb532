"""The vocabulary of a pretrained model: byte-level BPE (the kind of GPT-2).

A text is cut into words by the model's own rule (`pre`). Each letter of a word stands for one byte,
and merges join letters in their order. `trimmed` drops the tokens that the data does not need
without changing how any text of the data is encoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ConfigDict, ValidationError

from tumen.core import untrusted
from tumen.core.errors import ArtifactError, InputError
from tumen.core.extras import optional
from tumen.core.shape import Frozen
from tumen.data.tokenizer.word_rules import WHOLE_WORDS, WORD_RULES
from tumen.formats.byte_level import byte_letters

if TYPE_CHECKING:
    from tokenizers import Tokenizer

tokenizers = optional("tokenizers", "reading a model's vocabulary")
FILE = "vocabulary.json"

# Where a token's embedding comes from: one row of the model's matrix, or the mean of several.
EmbeddingRow = int | tuple[int, ...]


class Vocabulary(Frozen):
    """Tokens and merges of one model.

    Attributes:
        tokens: by id, in byte letters; control tokens as they are written.
        merges: "left right" each; the first is merged first.
        control: ids that are not text.
        pre: rule that cuts a text into words, a name of `WORD_RULES`.
        begin, do, end: tokens that open a prompt, separate sentence and action, end the action.
        added: how many of the last tokens are ours: pieces of an action that no merge makes.
        rows: for each token its row in the embedding of the model it comes from, or the rows it
            is the mean of; None: all rows, in order.
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
    rows: tuple[EmbeddingRow, ...] | None = None

    def tokenizer(self) -> Tokenizer:
        """Return its tokenizer, which finds no control token in any text."""
        ids = {token: number for number, token in enumerate(self.tokens)}
        pairs = []
        for merge in self.merges:
            left, _, right = merge.partition(" ")
            pairs.append((left, right))
        model = tokenizers.models.BPE(ids, pairs, ignore_merges=self.pre in WHOLE_WORDS)
        tokenizer: Tokenizer = tokenizers.Tokenizer(model)
        tokenizer.pre_tokenizer = WORD_RULES[self.pre]()
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        return tokenizer

    def trimmed(self, texts: Iterable[str], merges: int) -> Vocabulary:
        """Return a smaller vocabulary that encodes some texts exactly as this one.

        Kept are: every token that occurs at any moment while a word of the texts is merged (so the
        same merges apply in the same order), the tokens of the first `merges` merges, all single
        bytes, and `begin`, `do` and `end`. The result is checked word by word.

        Args:
            texts: what must be encoded as before.
            merges: how many of the most frequent merges to keep whether or not a text needs them.

        Raises:
            InputError: a word would be encoded otherwise.
        """
        before = self.tokenizer()
        words = {word for text in texts for word, _ in before.pre_tokenizer.pre_tokenize_str(text)}
        smaller = self._only(self._needed(words, merges))
        after = smaller.tokenizer()
        for word in words:
            if _encoded_word(before, word) != _encoded_word(after, word):
                raise InputError(
                    f"trimmed, {word!r} would be encoded otherwise; leave tokenizer.trim out"
                )
        return smaller

    def _needed(self, words: Iterable[str], merges: int) -> set[str]:
        """Return the tokens that words need, see `trimmed`."""
        kept = {*byte_letters(), self.begin, self.do, self.end}
        kept.update(merge.replace(" ", "") for merge in self.merges[:merges])
        ranks = {merge: rank for rank, merge in enumerate(self.merges)}
        known = set(self.tokens)
        for word in words:
            kept.update(_merge_steps(word, ranks))
            if self.pre in WHOLE_WORDS and word in known:
                kept.add(word)
        return kept

    def _only(self, kept: set[str]) -> Vocabulary:
        """Return the vocabulary with only some tokens, and the merges between them."""
        old_ids = [number for number, token in enumerate(self.tokens) if token in kept]
        merges = []
        for merge in self.merges:
            parts = {*merge.split(" "), merge.replace(" ", "")}
            if parts <= kept:
                merges.append(merge)
        was_control = set(self.control)
        control = [new for new, old in enumerate(old_ids) if old in was_control]
        rows: list[EmbeddingRow] = [*old_ids]
        if self.rows is not None:
            rows = [self.rows[old] for old in old_ids]
        return self.model_copy(
            update={
                "tokens": tuple(self.tokens[old] for old in old_ids),
                "merges": tuple(merges),
                "control": tuple(control),
                "rows": tuple(rows),
            }
        )

    def with_tokens(self, pieces: Iterable[str]) -> Vocabulary:
        """Return the vocabulary with one more token for each piece that has none.

        The embedding of a new token starts as the mean of the tokens that it replaces.

        Raises:
            InputError: a piece is made of tokens that were added before.
        """
        tokenizer = self.tokenizer()
        known = set(self.tokens)
        added = [piece for piece in pieces if piece not in known]
        rows: tuple[EmbeddingRow, ...] = self.rows or tuple(range(len(self.tokens)))
        means: list[EmbeddingRow] = []
        for piece in added:
            ids = tokenizer.encode(piece).ids
            means.append(tuple(_single_row(rows[number]) for number in ids))
        return self.model_copy(
            update={"tokens": (*self.tokens, *added), "added": len(added), "rows": (*rows, *means)}
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


def _single_row(row: EmbeddingRow) -> int:
    if isinstance(row, tuple):
        raise InputError("the vocabulary already has added tokens")
    return row


def _encoded_word(tokenizer: Tokenizer, word: str) -> list[str]:
    """Return the tokens of one word that needs no further cutting."""
    return [token.value for token in tokenizer.model.tokenize(word)]


def _merge_steps(word: str, ranks: dict[str, int]) -> Iterator[str]:
    """Yield each token made while a word is merged: of the lowest rank, the leftmost pair first."""
    parts = list(word)
    while len(parts) > 1:
        candidates = []
        for at in range(len(parts) - 1):
            rank = ranks.get(f"{parts[at]} {parts[at + 1]}")
            if rank is not None:
                candidates.append((rank, at))
        if not candidates:
            return
        _, at = min(candidates)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        yield parts[at]
