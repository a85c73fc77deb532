"""Where rows come from: templates over generated homes, labelled data sets, local files."""

from tumen.data.sources.labelled import LabelledSentence, read_clinc, read_slurp_rows, read_snips
from tumen.data.sources.languages import LanguageData, home_assistant_codes, language_data
from tumen.data.sources.massive_rows import MassiveRow, read_massive_rows
from tumen.data.sources.read import read_sentences, read_text
from tumen.data.sources.source import SOURCES

__all__ = [
    "SOURCES",
    "LabelledSentence",
    "LanguageData",
    "MassiveRow",
    "home_assistant_codes",
    "language_data",
    "read_clinc",
    "read_massive_rows",
    "read_sentences",
    "read_slurp_rows",
    "read_snips",
    "read_text",
]
