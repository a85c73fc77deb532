"""Follows one value through the code, from the syntax trees alone, as a reader does.

    python -m tests.contracts.reading_path    the path of a recipe through `tumen run`

`ReadingPath` begins in a function with one of its parameters. It reads the function's statements in
order, and keeps track of the names that hold the value or something computed from it. A call that
gets such a name, as an argument or as the object before the dot, is followed into the function that
it calls, and the path returns to the caller afterwards.

Which function a call means is found by imports, annotations of parameters, fields and results, and
classes that are instantiated. A call is not followed
    - where that is not known, or outside of tumen
    - into core and formats: words and file formats, which a reader looks up
    - in a `raise`
    - into a function that was followed before
    - into an abstract method: which implementation runs is decided while the program runs
The path ends at the abstract method `until`. An instantiated class counts where it has an
`__init__` or `__post_init__` to read.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.contracts import structure

Function = ast.FunctionDef | ast.AsyncFunctionDef
Found = tuple[str, ast.AST]  # module, definition
LOOKED_UP = ("core", "formats")  # rooms that are not entered


class _EndReachedError(Exception):
    """The path has reached its end."""


@dataclass(frozen=True)
class Step:
    """One call that was followed."""

    module: str
    name: str
    depth: int


@dataclass
class Scope:
    """What is known inside one function.

    Attributes:
        module: where it stands.
        held: names that hold the value, or something computed from it.
        types: name -> class.
    """

    module: str
    held: set[str] = field(default_factory=set)
    types: dict[str, Found] = field(default_factory=dict)


class ReadingPath:
    """The calls that pass a value on.

    Args:
        module: where the path begins.
        function: of the module.
        parameter: of the function: the value.
        until: `Class.method` of the abstract method at which the path ends.

    Attributes:
        steps: followed calls in the order of reading, the first function included.
        ended: whether `until` was reached.
    """

    def __init__(self, module: str, function: str, parameter: str, until: str) -> None:
        self.steps: list[Step] = []
        self.ended = False
        self._until = until
        self._depth = 0
        self._followed: set[tuple[str, str]] = set()
        start = _member(structure.tree(module).body, function)
        assert isinstance(start, Function)
        try:
            self._follow(module, function, start, {parameter}, None)
        except _EndReachedError:
            self.ended = True

    def entries(self) -> Counter[str]:
        """How often each file is entered.

        That is, by a followed call from another file. Calls into the same file, with no other file
        between them, are one entry. A return to the caller is none.
        """
        counts: Counter[str] = Counter()
        callers: list[str] = []
        last = ""
        for step in self.steps:
            del callers[step.depth :]
            from_another = not callers or callers[-1] != step.module
            if from_another and step.module != last:
                counts[step.module] += 1
            callers.append(step.module)
            last = step.module
        return counts

    # -- following

    def _follow(
        self, module: str, name: str, function: Function, held: set[str], owner: Found | None
    ) -> None:
        if (module, name) in self._followed:
            return
        self._followed.add((module, name))
        self.steps.append(Step(module, name, self._depth))
        scope = Scope(module, held)
        for argument in _arguments(function):
            kind = self._annotated(module, argument.annotation)
            if kind:
                scope.types[argument.arg] = kind
        if owner and function.args.args and function.args.args[0].arg == "self":
            scope.types["self"] = owner
        self._depth += 1
        for statement in function.body:
            self._read(statement, scope)
        self._depth -= 1

    def _read(self, node: ast.AST, scope: Scope) -> None:
        """Read a statement or expression: first its parts, in order, then itself."""
        parts: list[Any]
        if isinstance(node, ast.Raise | Function | ast.Lambda):
            return
        if isinstance(node, ast.For | ast.AsyncFor):
            self._read(node.iter, scope)
            self._bind(node.target, node.iter, scope, element=True)
            parts = [*node.body, *node.orelse]
        elif isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            for generator in node.generators:
                self._read(generator.iter, scope)
                self._bind(generator.target, generator.iter, scope, element=True)
            parts = [test for generator in node.generators for test in generator.ifs]
            parts += [one for one in ast.iter_child_nodes(node) if one not in node.generators]
        else:
            parts = list(ast.iter_child_nodes(node))
        for part in parts:
            self._read(part, scope)
        if isinstance(node, ast.Assign):
            self._bind(node.targets[0], node.value, scope)
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value:
            self._bind(node.target, node.value, scope)
        elif isinstance(node, ast.withitem) and node.optional_vars:
            self._bind(node.optional_vars, node.context_expr, scope)
        elif isinstance(node, ast.Call):
            self._call(node, scope)

    def _bind(self, target: ast.expr, value: ast.expr, scope: Scope, element: bool = False) -> None:
        names = [node.id for node in ast.walk(target) if isinstance(node, ast.Name)]
        if _holds(value, scope.held):
            scope.held.update(names)
        kind = self._element_of(value, scope) if element else self._type_of(value, scope)
        if kind and isinstance(target, ast.Name):
            scope.types[target.id] = kind

    def _call(self, call: ast.Call, scope: Scope) -> None:
        if not _holds(call, scope.held):
            return
        found, owner = self._callee(call.func, scope)
        if found is None:
            return
        module, definition = found
        if structure.top(module) in LOOKED_UP:
            return
        if isinstance(definition, ast.ClassDef):
            self._construct(call, module, definition, scope)
            return
        assert isinstance(definition, Function)
        name = f"{owner[1].name}.{definition.name}" if owner else definition.name  # type: ignore[attr-defined]
        if owner and _is_abstract(definition, owner[1]):
            if name == self._until:
                raise _EndReachedError
            return
        held = _passed_on(call, definition, scope.held)
        self._follow(module, name, definition, held, owner)

    def _construct(
        self, call: ast.Call, module: str, definition: ast.ClassDef, scope: Scope
    ) -> None:
        for name in ("__init__", "__post_init__"):
            maker = _member(definition.body, name)
            if isinstance(maker, Function):
                held = _passed_on(call, maker, scope.held)
                owner = (module, definition)
                self._follow(module, f"{definition.name}.{name}", maker, held, owner)

    # -- what a name means

    def _callee(self, func: ast.expr, scope: Scope) -> tuple[Found | None, Found | None]:
        """Return (definition, class that it is a method of)."""
        if isinstance(func, ast.Name):
            return _defined(scope.module, func.id), None
        if not isinstance(func, ast.Attribute):
            return None, None
        owner = self._type_of(func.value, scope)
        if owner:
            return _method(owner, func.attr)
        if isinstance(func.value, ast.Name):  # a function of an imported module
            module = _imported(scope.module, func.value.id)
            if module in structure.files():
                return _defined(str(module), func.attr), None
        return None, None

    def _type_of(self, node: ast.expr, scope: Scope) -> Found | None:
        """Return the class of an expression, where it is known."""
        if isinstance(node, ast.Name):
            return scope.types.get(node.id)
        if isinstance(node, ast.Await):
            return self._type_of(node.value, scope)
        if isinstance(node, ast.Attribute):
            owner = self._type_of(node.value, scope)
            if owner is None:
                return None
            return self._annotated(owner[0], _field(owner[1], node.attr))
        if isinstance(node, ast.Call):
            found, _ = self._callee(node.func, scope)
            if found and isinstance(found[1], ast.ClassDef):
                return found
            if found and isinstance(found[1], Function):
                return self._annotated(found[0], found[1].returns)
        return None

    def _element_of(self, node: ast.expr, scope: Scope) -> Found | None:
        """Return the class of the elements of an expression, by its annotation."""
        annotation: ast.expr | None = None
        module = scope.module
        if isinstance(node, ast.Call):
            found, _ = self._callee(node.func, scope)
            if found and isinstance(found[1], Function):
                module, annotation = found[0], found[1].returns
        elif isinstance(node, ast.Name):
            return scope.types.get(f"{node.id}[]")
        if isinstance(annotation, ast.Subscript):
            return self._annotated(module, annotation.slice)
        return None

    def _annotated(self, module: str, annotation: ast.expr | None) -> Found | None:
        """Return the class that an annotation names; of `Class | None` the class."""
        if isinstance(annotation, ast.BinOp):
            return self._annotated(module, annotation.left)
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            return self._annotated(module, ast.parse(annotation.value, mode="eval").body)
        if isinstance(annotation, ast.Name):
            found = _defined(module, annotation.id)
            if found and isinstance(found[1], ast.ClassDef):
                return found
        return None


def _arguments(function: Function) -> list[ast.arg]:
    arguments = function.args
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]


def _holds(node: ast.AST, held: set[str]) -> bool:
    return any(isinstance(part, ast.Name) and part.id in held for part in ast.walk(node))


def _passed_on(call: ast.Call, function: Function, held: set[str]) -> set[str]:
    """Return the parameters of a function that get the value."""
    names = [argument.arg for argument in _arguments(function)]
    found = set()
    if names and names[0] in ("self", "cls"):
        receiver = call.func.value if isinstance(call.func, ast.Attribute) else None
        if receiver is None or _holds(receiver, held):
            found.add(names[0])
        names = names[1:]
    for name, argument in zip(names, call.args, strict=False):
        if _holds(argument, held):
            found.add(name)
    for keyword in call.keywords:
        if keyword.arg and _holds(keyword.value, held):
            found.add(keyword.arg)
    return found


def _member(body: Sequence[ast.stmt], name: str) -> ast.AST | None:
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and node.name == name:
            return node
    return None


def _imported(module: str, name: str) -> str | None:
    """Return the file that an imported name comes from, or is."""
    for node in ast.walk(structure.tree(module)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tumen"):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return structure.definition(str(node.module), alias.name)
    return None


def _original(module: str, name: str) -> str:
    """Return the name under which an imported name is defined."""
    for node in ast.walk(structure.tree(module)):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return alias.name
    return name


def _defined(module: str, name: str) -> Found | None:
    """Return the definition that a name means in a module."""
    own = _member(structure.tree(module).body, name)
    if own:
        return module, own
    origin = _imported(module, name)
    if origin is None or origin == module:
        return None
    found = _member(structure.tree(origin).body, _original(module, name))
    return (origin, found) if found else None


def _method(owner: Found, name: str) -> tuple[Found | None, Found | None]:
    """Return a method of a class or of its bases, and the class that has it."""
    for module, definition in _family(owner):
        found = _member(definition.body, name)
        if found:
            return (module, found), (module, definition)
    return None, None


def _family(owner: Found) -> Iterator[tuple[str, ast.ClassDef]]:
    """Yield a class and its bases in tumen."""
    module, definition = owner
    assert isinstance(definition, ast.ClassDef)
    yield module, definition
    for base in definition.bases:
        if isinstance(base, ast.Name):
            found = _defined(module, base.id)
            if found and isinstance(found[1], ast.ClassDef):
                yield from _family(found)


def _field(definition: ast.AST, name: str) -> ast.expr | None:
    """Return the annotation of a class's field or property."""
    assert isinstance(definition, ast.ClassDef)
    for node in definition.body:
        is_field = isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name
        if is_field:
            return node.annotation  # type: ignore[union-attr]
        if isinstance(node, Function) and node.name == name:
            return node.returns
    return None


def _is_abstract(function: Function, owner: ast.AST) -> bool:
    assert isinstance(owner, ast.ClassDef)
    decorators = {ast.unparse(node) for node in function.decorator_list}
    bases = {ast.unparse(node) for node in owner.bases}
    return "abstractmethod" in decorators or "Protocol" in bases


def path_of_run() -> ReadingPath:
    """Return the path of a recipe through `tumen run`, until the maker of a stage is chosen."""
    return ReadingPath("tumen.cli.build", "run", "recipe", until="Stage.make")


def main() -> None:
    """Print the path of a recipe through `tumen run`."""
    path = path_of_run()
    for step in path.steps:
        print(f"{'  ' * step.depth}{step.module.removeprefix('tumen.')}: {step.name}")
    counts = path.entries()
    print(f"{len(counts)} files, each entered at most {max(counts.values())} times")


if __name__ == "__main__":
    main()
