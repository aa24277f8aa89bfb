"""The shape of the package, read from its syntax trees: floors, legs, sizes, names.

Imports go strictly downward, hidden ones included. The design leg (table -> columns) and the family
leg (eta -> likelihood) never import each other, and no TensorFlow or Keras enters the design leg or
`import deepregress`. A new module fails `test_every_module_has_a_floor` until it is placed here.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import deepregress

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "deepregress"

# Floor -> its modules. "terms.*" is every member of the folder but its base and its __init__,
# which lies above the members: inside a folder the order is base, members, __init__.
FLOORS = {
    0: ("disk", "survival", "series", "sparse", "deep", "inference"),
    0.1: ("errors", "linalg", "groups", "reading"),
    0.3: ("disk.stored", "disk.source"),
    0.32: ("disk.scratch",),
    0.35: ("pictures", "vocabulary", "pooling"),
    0.4: ("response",),
    0.5: ("remainder", "disk.arrow", "response_forms", "frame"),
    0.6: ("complete_rows", "series.lags"),
    0.7: ("model_matrix", "survey"),
    0.8: ("series.lagged",),
    1: ("formula", "penalty", "data", "codec", "datasets", "survival.followup"),
    1.5: ("training_rows",),
    2: ("basis.base", "basis.*", "gating", "bijectors", "architecture"),
    2.3: ("keras_models",),
    2.5: ("families.kernels", "families.censoring", "families.numerical", "families.support"),
    2.55: ("factorised",),
    2.56: ("pruning",),
    2.6: (
        "families.special",
        "families.moments",
        "families.start",
        "families.parameter",
        "families.ordered",
    ),
    2.65: ("families.standard", "families.chain", "families.bernstein"),
    2.66: ("families.transformed", "families.risk_sets", "families.flow"),
    2.67: (
        "families.baseline",
        "families.flow_likelihood",
        "families.flow_moments",
        "families.flow_curve",
    ),
    2.68: ("families.lifetimes",),
    2.8: ("families.wrapped", "families.incomplete_gamma", "families.dispersion", "families.sums"),
    2.7: ("families.counting",),
    3: ("terms.base", "families.base", "networks"),
    3.3: ("terms.inputs", "terms.options", "families.formulated"),
    3.5: ("families.integrated",),
    3.6: ("terms.smooth", "terms.parametric", "families.counted"),
    3.8: ("families.proportion",),
    3.9: ("terms.deep", "terms.sparse"),
    4: ("terms.*", "families.*"),
    5: ("design",),
    5.5: ("disk.design",),
    6.9: ("crossproducts",),
    6.95: ("projection",),
    7: ("predictor", "objective"),
    7.5: ("assembly",),
    7.6: ("disk.fit",),
    8: ("solvers.base",),
    8.5: (
        "solvers.quadratic",
        "solvers.likelihood",
        "solvers.optimizer",
        "solvers.cell",
        "solvers.folds",
    ),
    8.55: ("solvers.parts",),
    8.6: ("solvers.plan", "solvers.outputs"),
    8.7: ("solvers.epoch_data", "solvers.epoch", "solvers.progress"),
    8.75: ("solvers.checkpoint", "solvers.streaming"),
    8.8: ("solvers.callbacks", "solvers.judgement", "solvers.refit"),
    8.9: ("solvers.validation",),
    9: ("solvers.*",),
    9.1: ("solvers.vertex",),
    9.3: ("solvers.constrained",),
    9.4: ("penalty_groups",),
    9.5: ("marginal",),
    9.6: ("prediction_error", "fellner_schall"),
    9.7: ("separation",),
    10: ("smoothing", "inference.covariance", "inference.significance"),
    10.1: ("sparse.model", "deep.flow_problem"),
    10.12: ("deep.flow_start",),
    10.15: ("sparse.straight",),
    10.2: ("sparse.fit", "deep.flow_fit"),
    10.25: ("sparse.selection",),
    10.27: ("sparse.gates",),
    10.3: ("inference.corrected", "deep.input_selection"),
    7.4: ("deep.features",),
    10.4: ("new_levels", "inference.level_tests", "deep.noise"),
    10.5: ("prediction",),
    10.55: ("new_response", "deep.posterior", "series.forecast"),
    10.6: (
        "quantities",
        "grids",
        "inference.term_tests",
        "inference.variance_components",
        "inference.comparison",
    ),
    10.65: ("quantile_residuals", "deep.decomposition", "inference.influence"),
    10.7: (
        "inference.delta",
        "effects",
    ),
    10.72: ("survival.baseline_errors",),
    10.75: ("survival_metrics",),
    10.8: ("diagnostics", "inference.basis_dimension", "panels"),
    10.9: ("printing", "goodness"),
    10.95: ("sparse.tables",),
    11: ("summary", "plotting", "saved", "sparse.plotting"),
    11.3: ("check",),
    11.5: ("estimates",),
    11.6: ("inference.rubin",),
    12: ("fitted", "series.autoregression"),
    12.5: ("deep.ensemble", "orthogonal"),
    12.6: ("loading",),
    12.7: ("survival.competing_risks", "survival.proportional_hazards"),
    12.8: ("survival.plotting",),
    13: ("model",),
    13.2: ("scoring", "inference.nominal_effects", "inference.binary_splits"),
    13.5: ("sparse.path", "deep.ensemble_fit", "cross_validation", "estimator"),
    14: ("",),
}
SHARED = {
    *(
        "errors",
        "linalg",
        "disk.arrow",
        "model_matrix",
        "groups",
        "frame",
        "response",
        "response_forms",
    ),
    *("data", "codec", "datasets", "disk.stored", "disk.source", "disk.scratch", "complete_rows"),
    *("survey", "training_rows", "survival.followup"),
    *("pictures", "vocabulary", "reading"),
}
DESIGN_LEG = {"remainder", "formula", "penalty", "basis", "gating", "terms", "design"}
DESIGN_LEG |= {"disk.design", "series.lags", "series.lagged"}
FAMILY_LEG = {"architecture", "bijectors", "families", "networks", "keras_models", "pooling"}
FAMILY_LEG |= {"factorised", "pruning"}
TENSORFLOW = {"tensorflow", "tensorflow_probability", "keras", "tf_keras"}
EMPTY_NAMES = {"util", "utils", "helper", "helpers", "common", "core", "misc", "tools", "shared"}

FILE_LINES = 500
FUNCTION_LINES = 60
IMPORT_SECONDS = 1.0


@dataclass(frozen=True)
class Module:
    """One file of the package and its name without the leading `deepregress.`."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def leg(self) -> str:
        """Itself or its folder, which belongs to one leg as a whole where it is named in one."""
        return leg_of(self.name)


def leg_of(name: str) -> str:
    """What of a module's name stands in the sets of the legs: all of it, or its folder."""
    return name if name in DESIGN_LEG | FAMILY_LEG | SHARED else name.partition(".")[0]


@cache
def modules() -> dict[str, Module]:
    """Every module of the package by its name; the package itself is ""."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        found[name] = Module(name, path, ast.parse(path.read_text(), str(path)))
    return found


def each_module() -> pytest.MarkDecorator:
    """Run a test once per module."""
    return pytest.mark.parametrize("module", modules().values(), ids=lambda m: m.name or "top")


def imports(module: Module) -> Iterator[tuple[str, int]]:
    """Absolute names of everything a module imports, anywhere in it, with the line."""
    package = ["deepregress", *[part for part in module.name.split(".") if part]]
    if module.path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def own_imports(module: Module) -> Iterator[tuple[str, int]]:
    """Modules of this package that a module imports, by their names here."""
    for name, line in imports(module):
        first, _, rest = name.partition(".")
        if first == "deepregress":
            while rest not in modules():
                rest = rest.rpartition(".")[0]
            yield rest, line


def place(name: str) -> tuple[float, str, int] | None:
    """Floor, folder and rank inside the folder (0 base, 1 member, 2 __init__)."""
    folder = name.rpartition(".")[0]
    rank = 0 if name == f"{folder}.base" else 1
    for floor, members in FLOORS.items():
        if name in members:
            return floor, folder, rank
    for floor, members in FLOORS.items():
        if folder and f"{folder}.*" in members:
            return floor, folder, rank
        if f"{name}.*" in members:
            return floor, name, 2
    return None


def may_import(module: str, target: str) -> bool:
    """Whether `target` lies strictly below `module`."""
    here, there = place(module), place(target)
    assert here is not None, f"place {module!r} on a floor in tests/test_architecture.py"
    assert there is not None, f"place {target!r} on a floor in tests/test_architecture.py"
    same_folder = here[1] == there[1] != ""
    return there[0] < here[0] or (same_folder and there[0] == here[0] and there[2] < here[2])


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def report(module: Module, faults: list[tuple[int, str]]) -> None:
    """Fail with one line per fault, as file:line."""
    where = module.path.relative_to(ROOT)
    assert not faults, "\n" + "\n".join(f"{where}:{line}: {what}" for line, what in faults)


def test_the_rule_itself() -> None:
    """The floors answer known questions as DESIGN does."""
    assert may_import("design", "terms")
    assert may_import("terms.smooth", "terms.base")
    assert may_import("families", "families.base")
    assert may_import("basis", "basis.cubic")
    assert not may_import("terms.base", "terms.smooth")
    assert not may_import("terms.smooth", "terms.deep")
    assert not may_import("predictor", "objective")
    assert not may_import("solvers.base", "solvers.newton")
    assert not may_import("basis.cubic", "basis")
    assert not may_import("objective", "smoothing")


@each_module()
def test_every_module_has_a_floor(module: Module) -> None:
    message = f"{module.name!r} is unknown: place it on a floor in tests/test_architecture.py"
    assert place(module.name) is not None, message


@each_module()
def test_imports_go_strictly_downward(module: Module) -> None:
    faults = [
        (line, f"imports {target!r}, which does not lie below {module.name!r}")
        for target, line in own_imports(module)
        if not may_import(module.name, target)
    ]
    report(module, faults)


@each_module()
def test_legs_never_meet(module: Module) -> None:
    other = {**dict.fromkeys(DESIGN_LEG, FAMILY_LEG), **dict.fromkeys(FAMILY_LEG, DESIGN_LEG)}
    forbidden = other.get(module.leg, DESIGN_LEG | FAMILY_LEG if module.leg in SHARED else set())
    faults = [
        (line, f"imports {target!r} of the other leg")
        for target, line in own_imports(module)
        if leg_of(target) in forbidden
    ]
    report(module, faults)


@each_module()
def test_no_tensorflow_in_the_design_leg(module: Module) -> None:
    if module.leg not in DESIGN_LEG | SHARED | {""}:
        return
    faults = [
        (line, f"imports {name!r}")
        for name, line in imports(module)
        if name.partition(".")[0] in TENSORFLOW
    ]
    report(module, faults)


@each_module()
def test_own_imports_stand_at_the_top(module: Module) -> None:
    faults = [
        (node.lineno, f"function-local import of {target!r}")
        for function in functions(module.tree)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for target, line in own_imports(module)
        if line == node.lineno
    ]
    report(module, faults)


@each_module()
def test_foreign_imports_are_declared(module: Module) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[^\w-]", item)[0].replace("-", "_") for item in project["dependencies"]}
    declared |= {"deepregress", "sklearn", "PIL", *sys.stdlib_module_names}
    faults = [
        (line, f"{name!r} is no dependency in pyproject.toml")
        for name, line in imports(module)
        if name.partition(".")[0] not in declared
    ]
    report(module, faults)


@each_module()
def test_files_and_functions_are_short(module: Module) -> None:
    lines = len(module.path.read_text().splitlines())
    faults = [(1, f"{lines} lines, {FILE_LINES} at most")] if lines > FILE_LINES else []
    for function in functions(module.tree):
        body = function.body[1:] if ast.get_docstring(function) is not None else function.body
        size = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
        if size > FUNCTION_LINES:
            faults.append((function.lineno, f"{function.name}: {size} lines"))
    report(module, faults)


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "vignettes"])
def test_other_files_are_short(folder: str) -> None:
    long = {
        path.name: size
        for path in (ROOT / folder).rglob("*.py")
        if (size := len(path.read_text().splitlines())) > FILE_LINES
    }
    assert not long, f"{FILE_LINES} lines at most"


@each_module()
def test_names_say_something(module: Module) -> None:
    assert not EMPTY_NAMES & {part.lstrip("_") for part in module.name.split(".")}


@each_module()
def test_no_forbidden_construct(module: Module) -> None:
    faults = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and is_broad(node):
            faults.append((node.lineno, "broad except"))
        if isinstance(node, ast.Assert):
            faults.append((node.lineno, "assert"))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in {"eval", "exec", "compile", "print"}:
                faults.append((node.lineno, f"{node.func.id}()"))
        if isinstance(node, ast.Raise) and "NotImplementedError" in ast.dump(node):
            faults.append((node.lineno, "stub"))
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            faults.append((node.lineno, "star import"))
    report(module, faults)


def is_broad(handler: ast.ExceptHandler) -> bool:
    """Whether a handler catches everything, alone or in a tuple."""
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {node.id if isinstance(node, ast.Name) else None for node in caught}
    return handler.type is None or bool(names & {"Exception", "BaseException"})


@each_module()
def test_nothing_is_left_to_do(module: Module) -> None:
    text = module.path.read_text().splitlines()
    mark = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    report(module, [(n, line.strip()) for n, line in enumerate(text, 1) if mark.search(line)])


@each_module()
def test_no_keyword_bag_is_passed_through(module: Module) -> None:
    faults = []
    for function in functions(module.tree):
        bag = function.args.kwarg
        if bag is None:
            continue
        calls = (node for node in ast.walk(function) if isinstance(node, ast.Call))
        passed = (k.value for call in calls for k in call.keywords if k.arg is None)
        if any(isinstance(value, ast.Name) and value.id == bag.arg for value in passed):
            faults.append((function.lineno, f"{function.name}(**{bag.arg}) passes it on"))
    report(module, faults)


@each_module()
def test_public_names_are_documented(module: Module) -> None:
    faults = [] if ast.get_docstring(module.tree) else [(1, "module without docstring")]
    for node in module.tree.body:
        if isinstance(node, ast.FunctionDef) and is_undocumented(node):
            faults.append((node.lineno, node.name))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            if ast.get_docstring(node) is None:
                faults.append((node.lineno, node.name))
            faults += [
                (method.lineno, f"{node.name}.{method.name}")
                for method in node.body
                if isinstance(method, ast.FunctionDef)
                and is_undocumented(method)
                and not may_override(node)
            ]
    report(module, faults)


def is_undocumented(function: ast.FunctionDef) -> bool:
    """Whether a public function has no docstring; variants of an overload need none."""
    decorators = {node.id for node in function.decorator_list if isinstance(node, ast.Name)}
    public = not function.name.startswith("_") and "overload" not in decorators
    return public and ast.get_docstring(function) is None


def may_override(node: ast.ClassDef) -> bool:
    """Whether a class has a base whose docstrings its methods inherit."""
    bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
    return bool(bases - {"ABC", "Protocol", "Generic", "NamedTuple", "Enum", "StrEnum"})


def test_import_is_light() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import deepregress;"
        "print(time.perf_counter() - start); print(*sys.modules)"
    )
    seconds, loaded = [], set()
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
        )
        elapsed, names = done.stdout.splitlines()
        seconds.append(float(elapsed))
        loaded = {name.partition(".")[0] for name in names.split()}
    assert min(seconds) < IMPORT_SECONDS
    assert not loaded & (TENSORFLOW | {"pandas", "scipy", "sklearn", "matplotlib", "formulaic"})


def test_design_leg_runs_without_tensorflow() -> None:
    names = [f"deepregress.{m.name}" for m in modules().values() if m.leg in DESIGN_LEG | SHARED]
    code = (
        "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]];"
        f"print(*(set(sys.modules) & {TENSORFLOW}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *names], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", deepregress.__all__)
def test_public_names_exist(name: str) -> None:
    assert getattr(deepregress, name) is not None
    assert name in dir(deepregress)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = deepregress.fitt  # type: ignore[attr-defined]
