"""The structure of src/tumen, read from its syntax trees: imports, doors, sizes, names, density.

    python -m tests.contracts.structure    list every fault and print the density of the code

Rules (docs/decisions/012-rooms.md):
    - a room (a folder) has at most 12 files and 2,800 lines; a file at most 500
    - a door (`__init__.py`) exports at most 20 names, and rooms import each other by doors only
    - no circle of imports between files, imports inside functions included
    - no import of tumen inside a function, except of the rooms that need torch
    - no class or file has a name that another room gives to something else
Density is a direction, not a gate: see `density`.
"""

from __future__ import annotations

import ast
import io
import statistics
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "tumen"
MAX_FILES = 12
MAX_ROOM_LINES = 2_800
MAX_FILE_LINES = 500
MAX_DOOR_NAMES = 20
HEAVY = ("tumen.model", "tumen.train", "tumen.shrink")  # they need torch
SHARED_STEMS = {"__init__", "__main__"}


@cache
def files() -> dict[str, Path]:
    """Dotted module name -> file."""
    return {_module(path): path for path in sorted(SOURCE.rglob("*.py"))}


@cache
def tree(module: str) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(files()[module].read_text("utf-8"))


def _module(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_door(module: str) -> bool:
    """Whether a module is the `__init__.py` of a folder."""
    return files()[module].name == "__init__.py"


def rooms() -> list[str]:
    """Every folder of the package, subfolders included."""
    return [module for module in files() if is_door(module) and module != "tumen"]


def top(module: str) -> str:
    """The room on the first level: `cluster` for tumen.cluster.engines.slurm."""
    return module.split(".")[1] if "." in module else ""


def imports(module: str, inside_functions: bool = True) -> Iterator[tuple[str, int]]:
    """What a module imports of tumen, as (module, line); names of a door that are files count as those files."""
    body = tree(module)
    nodes = ast.walk(body) if inside_functions else _outside_functions(body)
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in files():
                    yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tumen"):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield (name if name in files() else str(node.module)), node.lineno


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _typing_only(
            child
        ):
            continue
        yield child
        yield from _outside_functions(child)


def _typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def circles() -> list[str]:
    """Circles of files that import each other (Tarjan's strongly connected components), one line each."""
    graph: dict[str, set[str]] = {}
    for module in files():
        if not is_door(module):
            graph[module] = {name for name, _ in _real_imports(module) if name != module}
    return [" <-> ".join(sorted(group)) for group in _components(graph) if len(group) > 1]


def _real_imports(module: str) -> Iterator[tuple[str, int]]:
    """Imports of a file, each name of a door followed to the file that defines it."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tumen"):
            for alias in node.names:
                yield definition(str(node.module), alias.name), node.lineno


def definition(module: str, name: str) -> str:
    """The file that defines what a door exports under a name."""
    if f"{module}.{name}" in files():
        return f"{module}.{name}"
    if module in files() and is_door(module):
        for node in tree(module).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tumen"):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return definition(str(node.module), alias.name)
    return module


def _components(graph: dict[str, set[str]]) -> list[list[str]]:
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            start = stack.index(node)
            found.append(stack[start:])
            del stack[start:]

    sys.setrecursionlimit(10_000)
    for node in graph:
        if node not in index:
            visit(node)
    return found


def passed_doors() -> list[str]:
    """Imports that go around another room's door. core has none: its modules are imported."""
    found = []
    for module in files():
        for name, line in imports(module):
            other = top(name) not in ("", "core", top(module))
            if other and not is_door(name) and not _exported(name):
                found.append(f"{module}:{line} imports {name}, not its door")
    return found


def _exported(module: str) -> bool:
    """Whether a door exports this file as a whole."""
    door, _, name = module.rpartition(".")
    return name in exports(door)


def exports(door: str) -> list[str]:
    """`__all__` of a door."""
    for node in tree(door).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def hidden_imports() -> list[str]:
    """Imports of tumen inside functions that keep no torch away."""
    found = []
    for module in files():
        outside = set(imports(module, inside_functions=False))
        for name, line in imports(module):
            heavy = name.startswith(HEAVY) and not module.startswith(HEAVY)
            if (name, line) not in outside and not heavy and not _in_type_checking(module, line):
                found.append(f"{module}:{line} imports {name} inside a function")
    return found


def _in_type_checking(module: str, line: int) -> bool:
    blocks = [node for node in ast.walk(tree(module)) if _typing_only(node)]
    return any(block.lineno <= line <= (block.end_lineno or 0) for block in blocks)


def oversized() -> list[str]:
    """Rooms, files and doors that are too large."""
    found = []
    for room in rooms():
        folder = files()[room].parent
        own = [path for path in files().values() if path.parent == folder]
        lines = sum(line_count(path) for path in own)
        if len(own) > MAX_FILES:
            found.append(f"{room} has {len(own)} files, at most {MAX_FILES}")
        if lines > MAX_ROOM_LINES:
            found.append(f"{room} has {lines:,} lines, at most {MAX_ROOM_LINES:,}")
        if len(exports(room)) > MAX_DOOR_NAMES:
            found.append(f"{room} exports {len(exports(room))} names, at most {MAX_DOOR_NAMES}")
    for module, path in files().items():
        if line_count(path) > MAX_FILE_LINES:
            found.append(f"{module} has {line_count(path)} lines, at most {MAX_FILE_LINES}")
    return found


def line_count(path: Path) -> int:
    """Lines of a file."""
    return len(path.read_text("utf-8").splitlines())


def ambiguous_names() -> list[str]:
    """Class and file names that stand in more than one place."""
    classes: dict[str, list[str]] = defaultdict(list)
    stems: dict[str, list[str]] = defaultdict(list)
    for module, path in files().items():
        if path.stem not in SHARED_STEMS:
            stems[path.stem].append(module)
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(module)
    found = [
        f"class {name}: {', '.join(where)}" for name, where in classes.items() if len(where) > 1
    ]
    return found + [
        f"file {name}.py: {', '.join(where)}" for name, where in stems.items() if len(where) > 1
    ]


def broken_imports() -> list[str]:
    """Imports of tumen, in any Python file of the repository, of a name that is not there."""
    found = []
    for folder in ("src", "tests", "benchmarks", "examples"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tumen"):
                    where = f"{path.relative_to(ROOT)}:{node.lineno}"
                    found += [f"{where} {lost}" for lost in _lost_names(node)]
    return found


def _lost_names(node: ast.ImportFrom) -> Iterator[str]:
    module = str(node.module)
    if module not in files():
        yield f"imports {module}, which is not there"
        return
    for alias in node.names:
        if f"{module}.{alias.name}" not in files() and alias.name not in _names_of(module):
            yield f"imports {alias.name} from {module}, which has no such name"


@cache
def _names_of(module: str) -> set[str]:
    """Names that a module defines or imports at its top level."""
    names = set()
    for node in _outside_functions(tree(module)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    functions = [
        node
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return names | {node.name for node in functions} | {"__version__"}


def density() -> dict[str, float]:
    """How packed the code is.

    nodes_a_line: AST nodes a line of code. body_95: AST nodes of a function's body, 95th percentile. conditionals: conditional
    expressions in 1,000 lines of code. long: share of lines beyond 100 characters. comments: share of lines with a comment.
    """
    nodes = lines = conditionals = long = comments = total = 0
    bodies: list[int] = []
    for module, path in files().items():
        text = path.read_text("utf-8")
        code, commented = _code_lines(text)
        every = text.splitlines()
        lines += code
        comments += commented
        total += len(every)
        long += sum(len(line) > 100 for line in every)
        for node in ast.walk(tree(module)):
            nodes += 1
            conditionals += isinstance(node, ast.IfExp)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                bodies.append(sum(1 for part in node.body for _ in ast.walk(part)))
    return {
        "nodes_a_line": round(nodes / lines, 2),
        "body_95": round(statistics.quantiles(bodies, n=20)[-1]),
        "conditionals": round(1000 * conditionals / lines, 1),
        "long": round(long / total, 4),
        "comments": round(comments / total, 4),
    }


def _code_lines(text: str) -> tuple[int, int]:
    """Lines that hold code (docstrings included), and lines that hold a comment."""
    code: set[int] = set()
    commented: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            commented.add(token.start[0])
        elif token.type not in (
            tokenize.NL,
            tokenize.NEWLINE,
            tokenize.INDENT,
            tokenize.DEDENT,
            tokenize.ENDMARKER,
        ):
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code), len(commented)


CHECKS = (broken_imports, circles, passed_doors, hidden_imports, oversized, ambiguous_names)


def main() -> int:
    """Print every fault and the density; returns 1 where there is a fault."""
    faults = [f"{check.__name__}: {fault}" for check in CHECKS for fault in check()]
    print("\n".join(faults) or f"structure: {len(rooms())} rooms, {len(files())} files, no fault")
    print("density:", ", ".join(f"{name} {value}" for name, value in density().items()))
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
