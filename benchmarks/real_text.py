"""Real text without a download: what is written in the packages installed here.

Written as a JSONL of {"text", "from"}.

    python benchmarks/real_text.py OUT.jsonl

Docstrings of the standard library and of site-packages (a module's docstrings are one document),
*.md, *.rst and *.txt that read like text, and man pages. The order is that of the paths, and a
path is told from its root on, so the same packages give the same bytes. Prints how much came from
where. Needs no network and runs nothing of what it reads.
"""

from __future__ import annotations

import ast
import gzip
import json
import re
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOTS = ("stdlib", "purelib", "platlib")
PAGES = (Path("/usr/share/man"), Path("/usr/share/doc"), Path("/usr/share/perl"))
LEAST = 200  # characters; less is no text
MOST = 2_000_000  # bytes of a file; what is larger is data
NAMES = (".md", ".rst", ".txt", ".pod")
MACRO = re.compile(r"^[.'](?:SH|SS|TP|PP|P|IP|B|I|BR|IR|RB|RI|BI|IB|Nm|Nd|Sh|Pp|It|Fl|Ar)\b *")
LETTERS = 0.6  # a table of numbers is no text


def docstrings(source: str) -> str:
    """All docstrings of a module in order, or nothing when it does not parse."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    return "\n\n".join(text for text in found if text)


def man_page(source: str) -> str:
    """The words of a page in roff: macros and escapes taken away."""
    lines = [line for line in source.splitlines() if not line.startswith(('.\\"', "'\\\""))]
    text = "\n".join(
        re.sub(
            r"^[.'](?:SH|SS|TP|PP|P|IP|B|I|BR|IR|RB|RI|BI|IB|Nm|Nd|Sh|Pp|It|Fl|Ar)\b *", "", line
        )
        for line in lines
    )
    text = "\n".join(line for line in text.splitlines() if not line.startswith((".", "'")))
    text = re.sub(r"\\f(?:\[.*?\]|\(..|.)|\\[&/,|^:%]|\\s[+-]?\d+", "", text)
    return text.replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\").replace("\\ ", " ")


def text_of(path: Path) -> tuple[str, str]:
    """(kind, text) of a file; no kind when it is not ours to read."""
    name = path.name.lower()
    page = re.search(r"\.[1-8]\w*(\.gz)?$", name) and "man" in path.parts
    if not (page or name.endswith((*NAMES, ".py"))) or path.stat().st_size > MOST:
        return "", ""
    raw = path.read_bytes()
    try:
        source = (gzip.decompress(raw) if name.endswith(".gz") else raw).decode("utf-8")
    except (UnicodeDecodeError, OSError, EOFError):
        return "", ""
    if page:
        return "man pages", man_page(source)
    return (
        ("docstrings", docstrings(source))
        if name.endswith(".py")
        else (f"*{path.suffix.lower()}", source)
    )


def reads_like_text(text: str) -> bool:
    """Long enough and mostly letters."""
    solid = [char for char in text if not char.isspace()]
    return len(text) >= LEAST and sum(map(str.isalpha, solid)) > LETTERS * len(solid)


def files() -> Iterator[tuple[str, Path]]:
    """(path told from its root on, path) of every file under the roots, in order, each once."""
    places = {Path(sysconfig.get_path(name)).resolve() for name in ROOTS} | {
        page for page in PAGES if page.is_dir()
    }
    seen: set[Path] = set()
    for root in sorted(places):
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.is_symlink() and path not in seen:
                seen.add(path)
                yield f"{root.name}/{path.relative_to(root)}", path


def main(out: Path) -> None:
    warnings.simplefilter("ignore", SyntaxWarning)  # old escapes in other people's docstrings
    characters: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    with open(out, "w", encoding="utf-8") as lines:
        for told, path in files():
            kind, text = text_of(path)
            if kind and reads_like_text(text):
                lines.write(json.dumps({"text": text, "from": told}, ensure_ascii=False) + "\n")
                characters[kind] += len(text)
                documents[kind] += 1
    for kind, count in characters.most_common():
        print(f"{kind:<12} {documents[kind]:>7,} documents {count:>12,} characters")
    print(
        f"{out}: {sum(documents.values()):,} documents, {sum(characters.values()):,} characters, "
        f"{out.stat().st_size:,} bytes"
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
