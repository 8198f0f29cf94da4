"""The way through the house, read from the imports: nothing goes back.

Layer 0 axes, settings | 1 data, model, metrics | 2 tasks, pretrained, objective,
transfer | 3 train | 4 train.loop | 5 generate, evaluate | 6 sweep, plan, report |
7 cli, experiments, configs, scripts. A file imports from its own or a lower layer.
"""

import ast
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TREES = ("tljax", "experiments", "configs", "scripts")
LAYERS = (
    ("tljax", "axes", "settings"),
    ("data", "model", "metrics"),
    ("tasks", "pretrained", "objective", "transfer"),
    ("train",),
    ("train.loop",),
    ("generate", "evaluate"),
    ("sweep", "plan", "report"),
    ("cli", "experiments", "configs", "scripts"),
)
LAYER_OF = {room: i for i, rooms in enumerate(LAYERS) for room in rooms}
JAX = ("jax", "jaxlib", "flax", "optax", "orbax", "chex")
WITHOUT_JAX = ("tljax", "axes", "settings", "data", "metrics", "report")


@dataclasses.dataclass(frozen=True)
class Import:
    """One import statement's target; `lazy` if it stands inside a function."""

    module: str
    lazy: bool


def module_name(path: pathlib.PurePath) -> str:
    """'tljax/train/loop.py' -> 'tljax.train.loop'; a package is its folder's name."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """'tljax.train.state' -> 'train'; 'tljax.train.loop' -> 'train.loop'."""
    parts = module.split(".")
    if parts[0] != "tljax" or len(parts) == 1:
        return parts[0]
    return "train.loop" if parts[1:3] == ["train", "loop"] else parts[1]


def read_imports(source: str, module: str, modules: set[str]) -> list[Import]:
    """Every import of one file; `from a import b` means a.b where that is a module."""
    found = []

    def visit(node: ast.AST, lazy: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, lazy) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{module}: relative import; write the whole name")
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                known = whole if whole in modules else node.module
                found.append(Import(known, lazy))
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, lazy or function)

    visit(ast.parse(source), lazy=False)
    return found


def complaints(files: Mapping[str, str]) -> list[str]:
    """What is wrong with the imports of {module: source}, one line each."""
    modules = set(files)
    imports = {m: read_imports(text, m, modules) for m, text in files.items()}
    lines = []
    for module, targets in imports.items():
        for target in targets:
            lines += _wrong_import(module, target.module)
        if room_of(module) in WITHOUT_JAX:
            lines += _arrives_at_jax(module, imports)
    return lines + list(_cycles(imports))


def _wrong_import(module: str, target: str) -> Iterator[str]:
    room, package = room_of(module), target.split(".")[0]
    if room not in LAYER_OF:
        yield f"{module}: room {room!r} stands in no layer"
    elif package in ("tljax", "experiments", "configs", "scripts"):
        other = room_of(target)
        if other not in LAYER_OF:
            yield f"{module} imports {target}: room {other!r} stands in no layer"
        elif LAYER_OF[other] > LAYER_OF[room]:
            yield f"{module} (layer {LAYER_OF[room]}) imports {target} above it"
    elif package in JAX and room in WITHOUT_JAX:
        yield f"{module} imports {target}; the room {room} does without JAX"
    elif package == "flax" and room != "model":
        yield f"{module} imports {target}; only model/ does"
    elif package in ("tensorflow", "tensorflow_text"):
        yield f"{module} imports {target}; nothing here needs TensorFlow"


def _arrives_at_jax(start: str, imports: Mapping[str, list[Import]]) -> Iterator[str]:
    """Follows what is imported when `start` is: our own modules and their packages."""
    seen, ways = {start}, [(start,)]
    while ways:
        way = ways.pop()
        for target in imports[way[-1]]:
            if target.lazy:
                continue
            if target.module.split(".")[0] in JAX and len(way) > 1:
                yield f"{start} arrives at {target.module} by {' > '.join(way)}"
            parts = target.module.split(".")
            for end in range(1, len(parts) + 1):
                name = ".".join(parts[:end])
                if name in imports and name not in seen:
                    seen.add(name)
                    ways.append((*way, name))


def _cycles(imports: Mapping[str, list[Import]]) -> Iterator[str]:
    """Rooms from which one can walk back to the room itself."""
    doors: dict[str, set[str]] = {}
    for module, targets in imports.items():
        ours = {room_of(t.module) for t in targets if room_of(t.module) in LAYER_OF}
        room = room_of(module)
        doors.setdefault(room, set()).update(ours - {room, "tljax"})
    for start in sorted(doors):
        seen, rooms = set(), list(doors[start])
        while rooms:
            room = rooms.pop()
            if room not in seen:
                seen.add(room)
                rooms.extend(doors.get(room, ()))
        if start in seen:
            yield f"room {start} imports itself through others of {sorted(seen)}"


def house() -> dict[str, str]:
    """{module: source} of every Python file of the repository but the tests."""
    paths = [path for tree in TREES for path in (ROOT / tree).rglob("*.py")]
    return {module_name(p.relative_to(ROOT)): p.read_text("utf-8") for p in paths}


def test_the_house_keeps_its_layers():
    files = house()
    assert {"tljax", "tljax.axes", "tljax.settings"} <= set(files)
    assert complaints(files) == []


GOOD = {
    "tljax": "",
    "tljax.settings": "import dataclasses",
    "tljax.data": "",
    "tljax.data.packing": "import numpy\nfrom tljax import settings",
    "tljax.model.transformer": "import flax.linen as nn\nimport jax",
    "tljax.train.state": "from tljax.model import transformer\nimport optax",
    "tljax.train.loop": "from tljax.train import state",
    "tljax.evaluate.split": "import tljax.train.loop",
    "tljax.report.page": "from tljax.metrics.scores import f1",
    "tljax.metrics.scores": "import numpy",
    "experiments.low_shot": "from tljax.report import page",
}


def test_a_house_that_keeps_them_has_no_complaint():
    assert complaints(GOOD) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("tljax.settings", "import tljax.data", "above it"),
        ("tljax.settings", "from tljax import data", "above it"),
        ("tljax.train.state", "from tljax.train import loop", "above it"),
        ("tljax.train.state", "def f():\n  import tljax.report.page", "above it"),
        ("tljax.model.block", "import experiments.low_shot", "above it"),
        ("tljax.data.packing", "import jax.numpy as jnp", "does without JAX"),
        ("tljax.data.packing", "def f():\n  from jax import tree", "does without JAX"),
        ("tljax.report.page", "import optax", "does without JAX"),
        ("tljax.report.page", "from tljax.model import transformer", "arrives at jax"),
        ("tljax.report.page", "import tljax.train.state", "arrives at optax"),
        ("tljax.train.state", "from flax import linen", "only model/ does"),
        ("tljax.data.corpus", "import tensorflow as tf", "TensorFlow"),
        ("tljax.utils.misc", "import os", "stands in no layer"),
        ("tljax.metrics.scores", "import tljax.kitchen", "stands in no layer"),
    ],
)
def test_a_made_up_bad_import_is_found(module, source, complaint):
    found = complaints(GOOD | {module: source})
    assert any(complaint in line and module in line for line in found), found


def test_rooms_of_one_layer_that_import_each_other_are_a_cycle():
    bad = {"tljax.data.a": "import tljax.metrics.scores"}
    assert complaints(GOOD | bad) == []
    bad["tljax.metrics.scores"] = "import tljax.data.a"
    found = complaints(GOOD | bad)
    assert [line.split()[1] for line in found] == ["data", "metrics"]


def test_an_import_inside_a_function_does_not_bring_jax_to_the_reader():
    record = {"tljax.train.record": "def devices():\n  import jax"}
    reader = {"tljax.report.page": "import tljax.train.record"}
    assert complaints(GOOD | record | reader) == []


def test_a_relative_import_is_refused():
    with pytest.raises(ValueError, match="relative import"):
        complaints({"tljax.data.a": "from . import b"})
