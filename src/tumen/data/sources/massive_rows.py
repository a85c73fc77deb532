"""MASSIVE: SLURP's sentences in 52 languages, localised by people; 60 intents, 55 slots.

FitzGerald et al. 2022, arXiv 2204.08582; github.com/alexa/massive, CC BY 4.0. A row's id is SLURP's
`slurp_id` and the same in all languages. Three forms are read alike:

the release's own files   locale, partition, scenario, intent, utt, annot_utt ("[date : friday]")
JSON lines with spans     id, intent, utt, slots [[type, start, end], ...]; locale and partition are
                          read from the name of the file (`de-DE.train.jsonl`) where a row has none
`AmazonScience/massive`   the same rows from the Hugging Face hub, by the `datasets` library
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tumen.core.errors import InputError
from tumen.core.extras import need
from tumen.data.sources.labelled import ENTITY, LabelledSentence, LabelledSource
from tumen.data.sources.languages import language_data
from tumen.data.sources.read import missing_file, read_rows
from tumen.data.sources.source import SPLIT_NAMES
from tumen.language import LANGUAGES
from tumen.recipe import Data

HUB = "AmazonScience/massive"
HUB_REVISION = "refs/convert/parquet"  # the hub's copy that needs no script
ORIGIN = f"https://github.com/alexa/massive, or name {HUB}"
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
FILE_LOCALE = re.compile(r"^([a-z]{2,3}-[A-Z]{2})(?:[._-]|$)")
FILE_PARTITION = re.compile(r"[._-](train|dev|valid|validation|test)\b")

Span = tuple[str, int, int]
"""A slot's name, and the first and one after the last of its characters in the utterance."""


@dataclass(frozen=True)
class MassiveRow:
    """One row.

    Attributes:
        labelled: its sentence, intent and slots; its language is the first part of the locale.
        locale: such as `zh-CN`; "" if neither the row nor its file says it.
        spans: its slots, in the order of the sentence.
    """

    labelled: LabelledSentence
    locale: str
    spans: tuple[Span, ...]


def read_massive(path: str) -> Iterator[LabelledSentence]:
    """Return the rows of all locales; see `read_massive_rows`."""
    return (row.labelled for row in read_massive_rows(path))


def read_massive_rows(
    path: str, locales: Sequence[str] = (), broken: list[str] | None = None
) -> Iterator[MassiveRow]:
    """Yield the rows of a file, of a folder's files, or of the hub.

    Args:
        path: of a file or folder, or `AmazonScience/massive`.
        locales: only these: `pt-PT`, or `pt` for all of a language; empty: all.
        broken: takes one line for each row that is none of MASSIVE's; None: the first one raises.

    Raises:
        InputError: the file is missing or holds another form; names the row.
    """
    if path == HUB and not Path(path).exists():
        for locale in _hub_locales(locales):
            for number, row in enumerate(_hub_rows(locale), start=1):
                yield _row(row, locale, "", f"{path} {locale}, row {number}")
        return
    for file in _files(Path(path)):
        named = FILE_LOCALE.match(file.name)
        locale = named[1] if named else ""
        if locale and not is_wanted(locale, locales):
            continue
        side = FILE_PARTITION.search(file.name)
        partition = side[1] if side else ""
        for number, row in enumerate(read_rows(file, broken), start=1):
            try:
                found = _row(row, locale, partition, f"{file}, row {number}")
            except InputError as error:
                if broken is None:
                    raise
                broken.append(str(error))
                continue
            if is_wanted(found.locale, locales):
                yield found


def is_wanted(locale: str, wanted: Sequence[str]) -> bool:
    """Return whether a locale is one of some, or of one of their languages; any, if none is named.

    A row that does not say its locale is always wanted.
    """
    if not wanted or not locale:
        return True
    return any(locale == name or locale.startswith(f"{name}-") for name in wanted)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            raise missing_file(path, "data.path", ORIGIN)
        return [path]
    files = sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES))
    if not files:
        raise InputError(f"{path}: holds no {', '.join(SUFFIXES)} of MASSIVE; it has one a locale")
    return files


def _hub_locales(wanted: Sequence[str]) -> list[str]:
    """Return the names of the hub's parts that are wanted; one is named by its locale."""
    datasets = need("datasets", f"reading {HUB}")
    names = datasets.get_dataset_config_names(HUB, revision=HUB_REVISION)
    return [name for name in names if FILE_LOCALE.match(name) and is_wanted(name, wanted)]


def _hub_rows(locale: str) -> Iterator[Mapping[str, Any]]:
    """Yield a locale's rows; the hub has numbers for intents and scenarios, and their names."""
    datasets = need("datasets", f"reading {HUB}")
    for split, part in datasets.load_dataset(HUB, locale, revision=HUB_REVISION).items():
        for row in part:
            named = {"partition": split, **row}
            for column in ("intent", "scenario"):
                if isinstance(named.get(column), int):
                    named[column] = part.features[column].int2str(named[column])
            yield named


def _row(row: Mapping[str, Any], locale: str, partition: str, where: str) -> MassiveRow:
    """Return a row of any of the forms.

    Args:
        row: as it was read.
        locale: of its file, if the row has none.
        partition: of its file, if the row has none.
        where: the row's place, for an error.

    Raises:
        InputError: it is no row of MASSIVE.
    """
    try:
        text, spans = _said(row)
        intent = str(row["intent"])
        locale = str(row.get("locale") or locale)
        partition = str(row.get("partition") or partition)
        split = SPLIT_NAMES[partition] if partition else ""
    except (KeyError, TypeError, ValueError) as error:
        why = f"{type(error).__name__} {error}"
        raise InputError(f"{where}: no row of MASSIVE ({why})") from None
    language = locale.partition("-")[0] or LANGUAGES[0]
    slots = [(kind, text[start:end]) for kind, start, end in spans]
    id_ = "" if row.get("id") is None else str(row["id"])
    labelled = LabelledSentence(text, intent, slots, language, split, id_)
    return MassiveRow(labelled, locale, spans)


def _said(row: Mapping[str, Any]) -> tuple[str, tuple[Span, ...]]:
    """Return a row's utterance and its spans, in the order of the sentence."""
    if "slots" in row or "annot_utt" not in row:
        text = _text(row["utt"])
        spans = [_span(slot, text) for slot in row["slots"]]
        return text, tuple(sorted(spans, key=lambda span: span[1:]))
    text = ""
    found: list[Span] = []
    annotated = _text(row["annot_utt"])
    at = 0
    for match in ENTITY.finditer(annotated):
        text += annotated[at : match.start()]
        found.append((match[1], len(text), len(text) + len(match[2])))
        text += match[2]
        at = match.end()
    return text + annotated[at:], tuple(found)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value


def _span(slot: Sequence[Any], text: str) -> Span:
    kind, start, end = slot
    if not 0 <= start < end <= len(text):
        raise ValueError(f"{kind}: characters {start} to {end} of {len(text)}")
    return str(kind), start, end


class MassiveSource(LabelledSource):
    """MASSIVE, in the languages or locales of the recipe.

    A row whose id is held out in one language is held out in all of them.
    """

    read = staticmethod(read_massive)
    origin = ORIGIN

    def rows(self, section: Data) -> list[LabelledSentence]:
        """Return the rows of the recipe's locales, without those of held-out ids."""
        if not section.path:
            raise InputError(
                f"data.path is missing: name a file or folder of MASSIVE, or {HUB} for the hub's"
            )
        home = [language_data(lang).home_assistant for lang in section.languages]
        locales = section.locales or tuple(home)
        held = _held_ids(section.held_out)
        rows = read_massive_rows(section.path, locales)
        found = [row.labelled for row in rows if row.labelled.id not in held]
        if not found:
            raise InputError(f"{section.path}: holds no row in {', '.join(locales)}")
        return found


def _held_ids(paths: Sequence[str]) -> frozenset[str]:
    """Return the ids of held-out files that are MASSIVE's or SLURP's; other sets' are their own."""
    ids = set()
    for path in paths:
        if not Path(path).name.endswith(SUFFIXES):
            continue
        for row in read_rows(Path(path)):
            id_ = row["id"] if "utt" in row and "id" in row else row.get("slurp_id")
            if id_ is not None:
                ids.add(str(id_))
    return frozenset(ids)
