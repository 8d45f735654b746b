"""The rules of the architecture: layers, lazy imports, names, messages."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import retriever
from retriever import errors

ROOT = Path(retriever.__file__).parent
LAYERS = [
    (
        "types",
        "reports",
        "errors",
        "arguments",
        "names",
        "config",
        "canonical",
        "field_values",
        "regular_files",
        "lazy",
        "deadlines",
        "filters",
        "limits",
    ),
    ("encoders", "storage"),
    ("documents",),
    ("ingest", "search"),
    ("opening", "adopting", "maintenance", "write_session", "pickling", "index"),
    ("evaluation",),
    ("cli", "__main__", "testing"),
]
# Packages of one layer that know nothing of one another.
SIBLINGS = {
    "encoders": "storage",
    "storage": "encoders",
    "ingest": "search",
    "search": "ingest",
    "cli": "testing",
    "testing": "cli",
}
# What each part imports of the others, the ground (the first layer) left out: 37 edges. Before the
# two flows had packages of their own there were 126 between 29 parts, those to the ground included.
PARTS: dict[str, set[str]] = {
    "encoders": set(),
    "storage": set(),
    "documents": {"encoders"},
    "ingest": {"documents", "encoders", "storage"},
    "search": {"documents", "encoders", "storage"},
    "opening": {"documents", "encoders", "ingest", "storage"},
    "adopting": {"encoders", "opening", "storage"},
    "maintenance": {"encoders", "ingest", "search", "storage"},
    "write_session": {"search", "storage"},
    "pickling": set(),
    "index": {"documents", "encoders", "storage", "ingest", "search"}
    | {"opening", "adopting", "maintenance", "write_session", "pickling"},
    "evaluation": {"documents", "encoders", "index", "search"},
    "testing": {"encoders"},
    "cli": {"documents", "encoders", "storage", "ingest", "index", "evaluation"},
    "__main__": {"cli"},
}
HEAVY = {
    "faiss": {"search.vectors"},
    "openvino": {"encoders.forward.openvino_runtime"},
    "tokenizers": {"encoders.tokenization"},
    "torch": {
        "encoders.environment",
        "encoders.forward.torch_runtime",
        "encoders.forward.torch_forward",
        "encoders.reference",
        "encoders.cross_reference",
    },
    "sentence_transformers": {"encoders.reference", "encoders.cross_reference"},
    "sqlite3": {"storage", "search"},
    "sqlite_utils": {"storage.integrity"},
    "rich": {"cli"},
    "markdown_it": {"documents.parsers.markdown"},
    "Stemmer": {"documents.words.stemming"},
    "py3langid": {"documents.languages"},
    "click": {"cli"},
    "ir_measures": {"evaluation.measures"},
    "matplotlib": {"evaluation.plots"},
}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def modules() -> dict[str, ast.Module]:
    return {
        name_of(path): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(ROOT.rglob("*.py"))
    }


def imports(tree: ast.Module) -> set[str]:
    """Return the dotted names a module imports, at any depth but under TYPE_CHECKING."""
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer_of(module: str) -> int | None:
    package = module.split(".")[0]
    return next((n for n, names in enumerate(LAYERS) if package in names), None)


def test_imports_run_downward_only():
    wrong = []
    for name, tree in modules().items():
        mine = layer_of(name)
        for target in imports(tree):
            theirs = layer_of(target.removeprefix("retriever."))
            if not target.startswith("retriever.") or mine is None or theirs is None:
                continue
            sibling = SIBLINGS.get(name.split(".")[0])
            if theirs > mine or target.removeprefix("retriever.").split(".")[0] == sibling:
                wrong.append(f"{name} imports {target}")
    assert wrong == []
    assert {layer_of(name) for name in modules() if name} == set(range(len(LAYERS)))


def test_each_part_imports_what_it_is_said_to_import():
    found: dict[str, set[str]] = {}
    for name, tree in modules().items():
        mine = name.split(".")[0]
        theirs = {
            target.removeprefix("retriever.").split(".")[0]
            for target in imports(tree)
            if target.startswith("retriever.")
        }
        found.setdefault(mine, set()).update(theirs & set(PARTS) - {mine})
    assert {part: found[part] for part in PARTS} == PARTS
    assert set(found) - set(PARTS) <= {*LAYERS[0], ""}


def test_every_module_can_be_read_in_one_sitting():
    lengths = {path: len(path.read_bytes().splitlines()) for path in ROOT.rglob("*.py")}
    assert {name_of(path): n for path, n in lengths.items() if n > 400} == {}


def test_what_files_say_is_read_without_what_computes_it():
    """`checkpoint` reads a model's files; nothing in it may depend on how a model is computed."""
    wrong = [
        f"{name} imports {target}"
        for name, tree in modules().items()
        if name.startswith("encoders.checkpoint")
        for target in imports(tree)
        if target.startswith("retriever.encoders.forward")
    ]
    assert wrong == []


def test_there_is_no_import_cycle():
    known = modules()
    graph = {
        name: {
            target.removeprefix("retriever.")
            for target in imports(tree)
            if target.removeprefix("retriever.") in known
        }
        - {name}
        for name, tree in known.items()
        if name
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join([*path, name])
        if name in done:
            return
        for target in sorted(graph[name] & graph.keys()):
            # A package's own __init__ is reached by importing any of its modules.
            if not name.startswith(f"{target}."):
                visit(target, (*path, name))
        done.add(name)

    for name in graph:
        visit(name, ())
    assert done == graph.keys()


@pytest.mark.parametrize("library", sorted(HEAVY))
def test_each_heavy_library_is_imported_in_its_own_modules_only(library: str):
    users = {
        name
        for name, tree in modules().items()
        if any(target.split(".")[0] == library for target in imports(tree))
    }
    others = {
        name for name in users if not any(name.startswith(prefix) for prefix in HEAVY[library])
    }
    assert (
        others <= {"ingest.commits", "search.searcher"} if library == "sqlite3" else others == set()
    )


def test_tests_may_use_benchmarks_and_nothing_uses_tests():
    """Tests import the harness that they test; what both need is in `retriever.testing`."""
    repository = ROOT.parent
    helpers = {path.stem for path in (repository / "tests").glob("*.py")} | {"tests"}
    wrong = []
    for path in [*repository.glob("benchmarks/**/*.py"), *ROOT.rglob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        banned = (
            helpers if path.is_relative_to(repository / "benchmarks") else {*helpers, "benchmarks"}
        )
        wrong += [
            f"{path.relative_to(repository)} imports {name}"
            for name in imports(tree)
            if name.split(".")[0] in banned
        ]
    assert wrong == []


def test_exports_are_sorted_and_all_there():
    assert retriever.__all__ == sorted(retriever.__all__, key=lambda n: (n == "__version__", n))
    missing = [name for name in retriever.__all__ if getattr(retriever, name, None) is None]
    assert missing == []
    with pytest.raises(AttributeError, match="no attribute 'Idnex'"):
        _ = retriever.Idnex


def test_every_error_is_exported_and_says_its_exit_code():
    classes = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.RetrieverError)
    ]
    assert len(classes) > 20
    for cls in classes:
        assert cls.__name__ in retriever.__all__
        assert cls.__doc__
        assert 2 <= cls.exit_code <= 8  # 0 and 1 are answers
    assert errors.IndexLocked.exit_code == errors.IndexBusy.exit_code == 5
    assert issubclass(errors.InvalidQuery, ValueError)
    assert issubclass(errors.DocumentNotFound, LookupError)
    assert issubclass(errors.MissingDependency, ImportError)


def test_every_raise_of_ours_gives_a_hint():
    """`IndexCorrupt` brings its own hint; all others pass one."""
    names = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.RetrieverError)
    }
    without = []
    for module, tree in modules().items():
        if module == "errors":
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id not in names or node.func.id == "IndexCorrupt":
                continue
            if not any(keyword.arg in ("hint", None) for keyword in node.keywords):
                without.append(f"{module}:{node.lineno} {node.func.id}")
    assert without == []


def test_nothing_unsafe_is_called():
    """No pickle, shelve, marshal, eval, exec, torch.load or fork anywhere (RELIABILITY 4).

    But that one module tries whether an encoder can be pickled; it cannot read what it writes.
    """
    banned = {"pickle", "shelve", "marshal", "dill", "joblib"}
    writes_only = {"pickling: pickle", "pickling: pickle.Pickler"}
    calls = {"eval", "exec", "os.fork", "torch.load", "np.load", "numpy.load"}
    found = []
    for module, tree in modules().items():
        found += [f"{module}: {name}" for name in imports(tree) if name.split(".")[0] in banned]
        found += [
            f"{module}:{node.lineno} {ast.unparse(node.func)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) in calls
        ]
    assert set(found) - writes_only == set()


def test_only_one_module_opens_index_files_for_writing():
    """`storage/files.py` owns every durable byte outside SQLite."""
    writing = []
    for module, tree in modules().items():
        if not module.startswith("storage") or module == "storage.files":
            continue
        for node in ast.walk(tree):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if name in ("os.rename", "os.replace", "os.unlink") or name.endswith(
                (".write_text", ".write_bytes", ".unlink", ".mkdir")
            ):
                writing.append(f"{module}:{node.lineno} {name}")
    assert writing == []


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, retriever, retriever.evaluation; retriever.Document; retriever.RetrieverError;"
        "heavy = {'numpy','torch','faiss','sentence_transformers','sqlite3','click'};"
        "heavy |= {'ir_measures','matplotlib'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_using_an_index_without_encoding_imports_no_torch(tmp_path: Path):
    code = (
        "import sys; from retriever import Index; from retriever.testing import HashEncoder;"
        " i = Index.open(sys.argv[1], model=HashEncoder());"
        "i.add('the pump'); i.search('pump'); i.status(); i.verify(); i.compact(); i.close();"
        "heavy = {'torch','transformers','sentence_transformers','scipy','sklearn'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.index")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
