"""Read and check a GGUF's header before anything else opens the file.

Two kinds of files: a language model, and a LoRA adapter for one. Every refusal is one line.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tumen.core.errors import ArtifactError
from tumen.core.untrusted import Refusal, check_file
from tumen.formats.gguf_checks import check_lora, check_model
from tumen.formats.gguf_layout import Cursor, GgufFault, Header, read_header


def check(path: Path, error: Refusal = ArtifactError) -> Header:
    """Read the header of a language model, and check it against the file and against itself.

    Raises:
        `error`: not a GGUF, cut short, or a number in it that cannot be true.
    """
    return _checked(path, check_model, error)


def check_adapter(path: Path, base: Header, error: Refusal = ArtifactError) -> Header:
    """Read the header of an adapter, and check it against the file and against its base model.

    Raises:
        `error`: not a LoRA adapter, or one of another model.
    """
    return _checked(path, lambda header: check_lora(header, base), error)


def _checked(path: Path, check_header: Callable[[Header], None], error: Refusal) -> Header:
    size = check_file(path, error)
    try:
        if size < 24:  # magic word, version and both counts
            raise GgufFault("too short for a GGUF header")
        # Only the header is read, however large the file is.
        with open(path, "rb") as file:
            header = read_header(Cursor(file, size))
        check_header(header)
    except GgufFault as fault:
        raise error(f"{path}: not a usable GGUF: {fault}; make or fetch it again") from None
    return header
