"""Docstrings of public functions: summary, arguments, shapes of arrays, errors.

A function of at most `FEW` arguments may say all of it in its summary ("cells (y, x) to ...");
types stand in the signature, which mypy holds to (test_types.py).
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path.stem for path in (ROOT / "mpm").glob("*.py"))
FEW = 3
ARRAY = re.compile(r"\b(ndarray|Tensor|DataArray)\b")
SHAPE = re.compile(
    r"\([^()]*,[^()]*\)|\(\)|\(any shape\)|\b([Ss]ame|[Aa]s (for|of)|Of `)"
)  # or where it is said


def public(module):
    """Yield name and syntax tree of a module's public functions and methods."""
    yield from _below(ast.parse((ROOT / "mpm" / f"{module}.py").read_text(encoding="utf-8")), "")


def _below(tree, prefix):
    for node in tree.body:
        if getattr(node, "name", "_").startswith("_"):
            continue
        if isinstance(node, ast.ClassDef):
            yield from _below(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield f"{prefix}{node.name}", node


def section(text, name):
    """Return what a docstring's section says, "" if there is none."""
    pattern = rf"^{name}\n-+\n(.*?)(?=^[A-Z]\w+\n-+\n|^Source|\Z)"
    found = re.search(pattern, text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def described(text):
    """Return each argument of a section with its type and what is said of it."""
    entries = re.findall(r"^(\S[^\n]*)\n?((?:[ ]+[^\n]*\n?|\n)*)", text, re.MULTILINE)
    found = {}
    for first, below in entries:
        names, _, kind = first.partition(" : ")
        found |= {name.strip().lstrip("*"): f"{kind}\n{below}" for name in names.split(",")}
    return found


def arguments(node):
    """Return the arguments of a function, without self."""
    given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
    given += [each for each in (node.args.vararg, node.args.kwarg) if each]
    return [each for each in given if each.arg not in ("self", "cls")]


def is_array(annotation):
    """Whether an annotation is of an array, or of several; functions of arrays are none."""
    text = ast.unparse(annotation) if annotation else ""
    return bool(ARRAY.search(text)) and "Callable" not in text


def raised(node):
    """Return the classes that a function raises itself."""
    calls = [each.exc for each in ast.walk(node) if isinstance(each, ast.Raise) and each.exc]
    names = {ast.unparse(each.func) for each in calls if isinstance(each, ast.Call)}
    return {name.split(".")[-1] for name in names}


def faults(node):
    """Say what a function's docstring lacks."""
    text = ast.get_docstring(node)
    if not text:
        return ["it has none"]
    given, listed = arguments(node), described(section(text, "Parameters"))
    wrong = []
    if not listed and len(given) > FEW:
        wrong.append(f"{len(given)} arguments and no Parameters")
    for each in given:
        if listed and each.arg not in listed:
            wrong.append(f"Parameters lacks {each.arg}")
        elif is_array(each.annotation) and not SHAPE.search(listed.get(each.arg, text)):
            wrong.append(f"no shape of {each.arg}")
    returned = section(text, "Returns") or section(text, "Yields") or text
    if is_array(node.returns) and not SHAPE.search(returned):
        wrong.append("no shape of what it returns")
    errors = section(text, "Raises")
    return wrong + [f"Raises lacks {name}" for name in sorted(raised(node)) if name not in errors]


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_say_what_goes_in_and_what_comes_out(module):
    "Each argument, the shape of each array, each error that is raised in the function itself"
    found = {name: wrong for name, node in public(module) if (wrong := faults(node))}
    assert not found


@pytest.mark.parametrize(
    "function, expected",
    [
        ("def f(): pass", ["it has none"]),
        ('def f(a, b, c, d):\n "Add."', ["4 arguments and no Parameters"]),
        ('def f(a: np.ndarray):\n "Add."', ["no shape of a"]),
        ('def f(a: np.ndarray):\n "Add (y, x)."', []),
        ('def f(a: int) -> np.ndarray:\n "Add."', ["no shape of what it returns"]),
        ('def f(a):\n "Add."\n raise ValueError("no")', ["Raises lacks ValueError"]),
        (
            'def f(a, b):\n """Add.\n\n Parameters\n ----------\n a : int\n     One.\n """',
            ["Parameters lacks b"],
        ),
        (
            'def f(a: np.ndarray):\n """Add.\n\n Parameters\n ----------\n a : array\n'
            '     One.\n\n Raises\n ------\n ValueError\n     If (y, x).\n """',
            ["no shape of a"],
        ),
    ],
)
def test_what_is_missing_is_found(function, expected):
    "A docstring, an argument, a shape and an error that are not there"
    assert faults(ast.parse(function).body[0]) == expected
