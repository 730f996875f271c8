"""What no file of the project does: read a pickle, run a repository's code unasked, unpack an archive by its paths."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from house_files import name_of, python_files, tree

FILES = python_files("src", "recipes", "benchmarks")
PICKLES = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
LOADERS = {"extractall", "extract", "unpack_archive"}
OPEN_CODE = {"eval", "exec"}
PARTS = {"model_kwargs", "processor_kwargs", "config_kwargs"}
"""What sentence-transformers' Transformer loads of a folder, each with a trust_remote_code of its own."""


def calls(path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call))


def named(call: ast.Call) -> str:
    """Dotted name of what is called."""
    return ast.unparse(call.func)


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((item.value for item in call.keywords if item.arg == name), None)


def faults(module: ast.Module) -> Iterator[str]:
    """What a module does that it must not."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"line {node.lineno}: imports {name}" for name in names if name.split(".")[0] in PICKLES)
        if not isinstance(node, ast.Call):
            continue
        name, last = ast.unparse(node.func), ast.unparse(node.func).rsplit(".", 1)[-1]
        said = {item.arg for item in node.keywords} & {"trust_remote_code", None}  # None: **options
        if last == "from_pretrained" and name.rsplit(".", 2)[-2].startswith(("Auto", "auto")) and not said:
            yield f"line {node.lineno}: {name} without trust_remote_code, so transformers may ask on the terminal"
        if name == "Transformer" and not {item.arg for item in node.keywords} >= PARTS:
            yield f"line {node.lineno}: {name} without trust_remote_code for each part, so it may ask too"
        for bad in ("allow_pickle", "trust_remote_code"):
            value = keyword(node, bad)
            if isinstance(value, ast.Constant) and value.value is True:
                yield f"line {node.lineno}: {bad}=True"
        if name == "torch.load":
            value = keyword(node, "weights_only")
            if not (isinstance(value, ast.Constant) and value.value is True):
                yield f"line {node.lineno}: torch.load without weights_only=True"
        if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "pd.read_pickle", "pandas.read_pickle"):
            yield f"line {node.lineno}: {name}"
        if last in LOADERS or (name in OPEN_CODE):
            yield f"line {node.lineno}: {name}"
        if keyword(node, "shell") is not None and ast.unparse(keyword(node, "shell")) == "True":
            yield f"line {node.lineno}: a shell command"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_unsafe(path):
    allowed = ALLOWED.get(name_of(path), ())
    found = [fault for fault in faults(tree(path)) if not any(part in fault for part in allowed)]
    assert not found, f"{name_of(path)}: {found}"


ALLOWED: dict[str, tuple[str, ...]] = {
    "benchmarks/encode.py": ("Transformer without",),  # of a folder that it has just written
}
"""Exceptions by file, as a part of the message; each needs its reason beside it."""


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "AutoTokenizer.from_pretrained(name)",
        "transformers.AutoConfig.from_pretrained(name)",
        "Transformer(folder, config_kwargs=rates)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(a, b)",
        "yaml.load(text, Loader=yaml.Loader)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_each_of_them_is_found(code):
    assert list(faults(ast.parse(code)))


BY_HUB = {"snapshot_download", "hf_hub_download", "mkdtemp", "TemporaryDirectory", "mkstemp"}
"""Pulls with retries and hashes, and folders that outlive no process, are hub's: `pull.py`, `left_over.py`."""
IN_A_FOLDER = ("dir=",)
"""Of a run, which removes what a killed one left there; the pattern stands at its `sole_run`."""
OTHER_PULLS = {
    "src/rexbert_hf/hub/pull.py": "snapshot_download",
    "src/rexbert_hf/hub/left_over.py": "TemporaryDirectory",
    "src/rexbert_hf/hub/push_files.py": "hf_hub_download",  # of a card, in a cache of its own, inside with_retries
    "src/rexbert_hf/retrieval/serving/onnx_encoder.py": "snapshot_download",  # beside an export there is no hub room
}


@pytest.mark.parametrize("path", python_files("src"), ids=name_of)
def test_pulls_and_temporary_folders_are_those_of_hub(path):
    found = [call for call in calls(path) if named(call).rsplit(".", 1)[-1] in BY_HUB]
    found = [ast.unparse(call) for call in found if not any(part in ast.unparse(call) for part in IN_A_FOLDER)]
    found = [call for call in found if OTHER_PULLS.get(name_of(path), "nothing") not in call]
    assert not found, f"{name_of(path)}: {found}: take resolve of hub/pull.py, temporary_folder of hub/left_over.py"


def test_what_is_fine_is_not_reported():
    fine = "torch.load(path, weights_only=True)\nnp.load(path, allow_pickle=False)\nmodel.eval()\nimport json\n"
    assert not list(faults(ast.parse(fine + "load(name, trust_remote_code=chosen)")))


def test_defaults_do_not_trust_remote_code():
    """A parameter or field of that name is False unless the user says otherwise."""
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "trust_remote_code":
                assert ast.unparse(node.value) == "False", name_of(path)
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args]
                pairs = zip(reversed(arguments), reversed(node.args.defaults), strict=False)
                pairs = [*pairs, *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
                for argument, default in pairs:
                    if argument.arg == "trust_remote_code" and default is not None:
                        assert ast.unparse(default) == "False", f"{name_of(path)}: {node.name}"
