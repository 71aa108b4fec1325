"""F-26: nothing in the package runs code that lies in a file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import braindecode_pipe

SOURCES = sorted(Path(braindecode_pipe.__file__).parent.rglob("*.py"))
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
MODULES |= {"yaml", "ruamel", "jsonpickle"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {"read_pickle", "to_pickle", "unsafe_load", "full_load"}


def unsafe_parts(source: str) -> list[str]:
    """What in ``source`` loads, or may load, code from data."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").partition(".")[0] in MODULES:
                found.append(str(node.module))
        elif isinstance(node, ast.Call):
            found += _unsafe_call(node)
    return found


def _unsafe_call(node: ast.Call) -> list[str]:
    keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
    if isinstance(node.func, ast.Name):
        return [node.func.id] if node.func.id in CALLS else []
    if not isinstance(node.func, ast.Attribute):
        return []
    name = ast.unparse(node.func)
    if node.func.attr in METHODS:
        return [name]
    if "allow_pickle" in keywords and keywords["allow_pickle"] is not False:
        return [f"{name}(allow_pickle)"]
    if name in ("np.load", "numpy.load") and len(node.args) > 2:
        return [f"{name}(positional)"]
    if name in ("torch.load", "torch.jit.load") and keywords.get("weights_only") is not True:
        return [name]
    return []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import yaml.loader",
        "eval('1')",
        "exec(text)",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=flag)",
        "np.load(f, None, True)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "torch.load(f, weights_only=flag)",
        "pd.read_pickle(f)",
    ],
)
def test_f26_the_scan_finds_unsafe_loaders(source):
    assert unsafe_parts(source)


@pytest.mark.parametrize(
    "source",
    [
        "np.load(f)",
        "np.load(f, allow_pickle=False)",
        "torch.load(f, weights_only=True)",
        "re.compile(x)",
    ],
)
def test_f26_the_scan_lets_safe_loaders_pass(source):
    assert unsafe_parts(source) == []


def test_f26_no_source_of_the_package_loads_code_from_data():
    assert len(SOURCES) > 10
    found = {str(file): unsafe_parts(file.read_text(encoding="utf-8")) for file in SOURCES}
    assert {file: parts for file, parts in found.items() if parts} == {}
