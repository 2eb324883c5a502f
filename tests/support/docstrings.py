"""What the pages of the reference show of docstrings: an extension of Griffe, which reads the source.

The docstrings stay prose with names in backticks, which editors show as they are. On the site, a method has
the docstring of the base class that documents it, and names of public objects are links.
"""

import ast
import re
from collections.abc import Iterator
from typing import Any

import griffe

#: The public modules, and the names of those that have no `__all__`.
PUBLIC: dict[str, tuple[str, ...] | None] = {
    "oban": None,
    "oban.clock": ("MovableClock", "now", "use"),
    "oban.encryption": None,
    "oban.errors": (),
    "oban.filters": ("worker", "queue", "state", "tags", "any_tag", "args", "meta"),
    "oban.migration": None,
    "oban.otel": None,
    "oban.prometheus": None,
    "oban.telemetry": None,
    "oban.testing": None,
    "oban.web": None,
}
#: What type variables of the base classes are in the clients.
_ENGINES = {
    "oban.client.Oban": ("AsyncEngine | AsyncCaller | str | URL", "AsyncEngine"),
    "oban.sync_client.SyncOban": ("Engine | SyncCaller | str | URL", "Engine"),
}
_NAME = re.compile(r"(?<![\[`])`@?([A-Za-z_]\w*(?:\.\w+)*)(?:\(\))?`(?!\])")
#: Several parameters or errors with one description: `node, session: As for …`
_SEVERAL = re.compile(r"    (\w+(?:, \w+)+): ")
#: A block of code as reStructuredText has it.
_LITERAL = re.compile(r"^( +)::\n\n((?:\1    .*(?:\n|\Z)|\n)+)", re.MULTILINE)
_ITEM = re.compile(r"    (\w+): ")
#: Names of several public objects and modules, which say little without the object that they belong to.
_AMBIGUOUS = {"oban", "filters", "worker", "job"}


def public_names(package: griffe.Module) -> dict[str, str]:
    """The path of each public name on the site, by module and name, as in `oban.Oban`."""
    found = {}
    for path, names in PUBLIC.items():
        module: Any = package if path == package.path else package[path.partition(".")[2]]
        if path == "oban.errors":
            names = tuple(
                name for name, item in module.members.items() if not item.is_alias and item.is_class
            )
        for name in names if names is not None else [str(item).strip("'\"") for item in module.exports or ()]:
            found[f"{path}.{name}"] = name
    return found


class Docstrings(griffe.Extension):
    """Inherits docstrings, links names, and shows the types of the clients."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **_: Any) -> None:
        if pkg.path != "oban":
            return
        loader.resolve_aliases(implicit=True, external=False)
        paths = public_names(pkg)
        self.links = {name: path for path, name in paths.items() if name not in _AMBIGUOUS}
        # What these are called says little without the module.
        self.links = {name: path for name, path in self.links.items() if not path.startswith("oban.filters.")}
        self.links |= {
            f"filters.{name}": path for path, name in paths.items() if path.startswith("oban.filters.")
        }
        # Errors are on a page of their own, wherever else they can be imported from.
        self.links |= {name: path for path, name in paths.items() if path.startswith("oban.errors.")}
        self.package = pkg
        client: Any = pkg["client.Oban"]
        self.methods = {name: f"oban.Oban.{name}" for name in client.all_members if "_" in name.strip("_")}
        for path, types in _ENGINES.items():
            self._complete_client(pkg[path.partition(".")[2]], *types)
        for item in list(_objects(pkg)):
            if isinstance(item, griffe.Attribute) and item.docstring is None:
                _read_comment(item)
        for cls in [item for item in _objects(pkg) if isinstance(item, griffe.Class)]:
            _inherit(cls)
        for item in _objects(pkg):
            if isinstance(item, griffe.Function):
                _show_defaults(item)
            if item.docstring is not None:
                self._rewrite(item.docstring, item)
            if isinstance(item, griffe.Class) and _is_typed_dict(item):
                _list_keys(item)

    def _complete_client(self, cls: Any, engines: str, engine: str) -> None:
        inherited = cls.inherited_members["__init__"].final_target
        init = griffe.Function("__init__", lineno=inherited.lineno, endlineno=inherited.endlineno)
        for parameter in inherited.parameters:
            # It is only there so that an unknown option is an error with a suggestion.
            if parameter.name != "unknown":
                annotation = parameter.annotation
                if parameter.name == "engine":
                    node = ast.parse(engines, mode="eval").body
                    annotation = griffe.safe_get_annotation(node, parent=cls.module)
                init.parameters.add(
                    griffe.Parameter(
                        parameter.name,
                        annotation=annotation,
                        kind=parameter.kind,
                        default=parameter.default,
                    )
                )
        init.docstring = _copy(inherited.docstring, init)
        cls.set_member("__init__", init)

    def _rewrite(self, docstring: griffe.Docstring, item: griffe.Object) -> None:
        docstring.value = _LITERAL.sub(_fenced, "\n".join(separated(docstring.value.split("\n"))))
        owner = item if isinstance(item, griffe.Class) else item.parent
        local = {item.name, *_ITEM.findall(docstring.value)}
        if isinstance(item, griffe.Function):
            local |= {parameter.name for parameter in item.parameters}
        fenced = False
        lines = []
        for line in docstring.value.split("\n"):
            fenced ^= line.lstrip().startswith("```")
            lines.append(line if fenced else _NAME.sub(lambda found: self._link(found, owner, local), line))
        docstring.value = "\n".join(lines)
        # So that the types of errors are links, although the module may not import them.
        _, _, raised = docstring.value.partition("\nRaises:\n")
        for name in _ITEM.findall(raised):
            if name in self.links and name not in item.module.members:
                item.module.set_member(name, griffe.Alias(name, self.links[name]))

    def _link(self, found: re.Match[str], owner: Any, local: set[str]) -> str:
        text, name = found[0], found[1]
        head, _, rest = name.partition(".")
        if name in local:
            return text
        if name in self.links:
            return f"[{text}][{self.links[name]}]"
        if head in self.links and (not rest or self._has(self.links[head], rest)):
            return f"[{text}][{self.links[head]}{'.' * bool(rest)}{rest}]"
        if isinstance(owner, griffe.Class) and owner.path in (*_ENGINES, *_PUBLIC_CLASSES) and not rest:
            member = owner.all_members.get(name)
            # Jobs have keys in `meta` that are called as some of their attributes.
            if (
                ("_" in name or _PUBLIC_CLASSES[owner.path] != "oban.Job")
                and member is not None
                and member.is_public
                and member.docstring is not None
            ):
                return f"[{text}][{_PUBLIC_CLASSES[owner.path]}.{name}]"
        if name in self.methods:
            return f"[{text}][{self.methods[name]}]"
        return text

    def _has(self, path: str, rest: str) -> bool:
        cls: Any = self.package[path.partition(".")[2]]
        member = cls.all_members.get(rest)
        return member is not None and member.is_public and member.docstring is not None


#: Classes whose methods are on the pages, by where they are defined.
_PUBLIC_CLASSES = {
    "oban.client.Oban": "oban.Oban",
    "oban.sync_client.SyncOban": "oban.SyncOban",
    "oban.worker.Worker": "oban.Worker",
    "oban.models.job.Job": "oban.Job",
    "oban.models.in_worker.InWorker": "oban.Job",
}


def _objects(parent: Any) -> Iterator[Any]:
    for member in list(parent.members.values()):
        if not member.is_alias:
            yield member
            if member.is_module or member.is_class:
                yield from _objects(member)


def _copy(docstring: griffe.Docstring, parent: Any) -> griffe.Docstring:
    return griffe.Docstring(
        docstring.value,
        parent=parent,
        parser=docstring.parser,
        parser_options=docstring.parser_options,
        lineno=docstring.lineno,
        endlineno=docstring.endlineno,
    )


def _inherit(cls: griffe.Class) -> None:
    """Copy what base classes document: the methods of the clients are documented in common base classes."""
    for name, member in cls.members.items():
        if member.is_alias or member.docstring is not None or name.startswith("_"):
            continue
        for base in cls.mro():
            inherited = base.members.get(name)
            if inherited is not None and not inherited.is_alias and inherited.docstring is not None:
                member.docstring = _copy(inherited.docstring, member)
                if cls.path == "oban.sync_client.SyncOban":
                    # The examples of both clients are written for `Oban`.
                    member.docstring.value = re.sub(r"\b(await|async) ", "", member.docstring.value)
                break


def _show_defaults(function: griffe.Function) -> None:
    """Show numbers instead of the names of constants."""
    for parameter in function.parameters:
        if isinstance(parameter.default, griffe.Expr):
            path = parameter.default.canonical_path
            if path.startswith("oban."):
                constant = _found(function, path)
                if isinstance(constant, griffe.Attribute) and re.fullmatch(r"[\d_.]+", str(constant.value)):
                    parameter.default = str(constant.value)


def _found(item: griffe.Object, path: str) -> Any:
    try:
        found: Any = item.modules_collection[path]
        return found.final_target if found.is_alias else found
    except (KeyError, griffe.AliasResolutionError):
        return None


def _read_comment(item: griffe.Attribute) -> None:
    """Take the comment `#: …` above or after an attribute as its docstring."""
    if item.lineno is None or item.endlineno is None or isinstance(item.filepath, list):
        return
    source = item.lines_collection[item.filepath]
    _, found, comment = source[item.endlineno - 1].partition("#: ")
    lines = [comment] if found else []
    for line in reversed(source[: item.lineno - 1]) if not found else ():
        if not line.lstrip().startswith("#: "):
            break
        lines.insert(0, line.lstrip()[3:])
    if lines:
        text = " ".join(lines)
        item.docstring = griffe.Docstring(
            text[0].upper() + text[1:], parent=item, parser=griffe.Parser.google, parser_options={}
        )


def _is_typed_dict(cls: griffe.Class) -> bool:
    return any(
        str(base).rpartition(".")[2] == "TypedDict" for each in (cls, *cls.mro()) for base in each.bases
    )


def _list_keys(cls: griffe.Class) -> None:
    """Show the keys of a TypedDict, also those of its base classes, as code: they have no docstrings."""
    keys = {
        name: member.annotation
        for each in (*reversed(cls.mro()), cls)
        for name, member in each.members.items()
        if isinstance(member, griffe.Attribute)
    }
    lines = [f"    {name}: {annotation}" for name, annotation in keys.items()]
    cls.docstring = cls.docstring or griffe.Docstring("", parent=cls, parser=griffe.Parser.google)
    cls.docstring.value += "\n\n" + "\n".join(["```python", f"class {cls.name}(TypedDict):", *lines, "```"])


def _fenced(found: re.Match[str]) -> str:
    code = found[2].rstrip().replace(f"\n{found[1]}    ", f"\n{found[1]}").removeprefix("    ")
    return f"{found[1]}```python\n{code}\n{found[1]}```\n"


def separated(lines: list[str]) -> Iterator[str]:
    """The lines, with an item for each of several names that share one."""
    position = 0
    while position < len(lines):
        line = lines[position]
        found = _SEVERAL.match(line)
        end = position + 1
        if found is None:
            yield line
        else:
            while end < len(lines) and lines[end].startswith("     "):
                end += 1
            for name in found[1].split(", "):
                yield f"    {name}: {line[found.end() :]}"
                yield from lines[position + 1 : end]
        position = end
