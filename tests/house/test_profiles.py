"""`benchmarks/profiling.py` and `profiles.py`: shares that add up, groups that are right, no folder of this machine."""

from __future__ import annotations

import json
import sys
import tempfile
import time

import pytest
import torch
from house_files import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import processes
import profiles
import profiling
from profiling import Profile, Row


@pytest.mark.parametrize(
    ("names", "group"),
    [
        (["aten::mm", "autograd::engine::evaluate_function: MmBackward0"], "matrix products"),
        (["aten::addmm"], "matrix products"),
        (["aten::mul_", "Optimizer.step#StableAdamW.step"], "optimizer and clipping"),
        (["aten::_foreach_norm"], "optimizer and clipping"),
        (["aten::bmm", "_FlatAttention"], "attention"),
        (["aten::_scaled_dot_product_flash_attention_for_cpu_backward"], "attention"),
        (["aten::mm", "_LinearCrossEntropy"], "head and loss"),
        (["mkldnn::_linear_pointwise"], "matrix products"),
        (["aten::copy_", "aten::_to_copy", "aten::to"], "copies, casts and fills"),
        (["aten::empty_strided"], "copies, casts and fills"),
        (["aten::zeros_like"], "copies, casts and fills"),
        (["aten::embedding_dense_backward"], "embedding and gather"),
        (["aten::index_select"], "embedding and gather"),
        (["aten::random_"], "random numbers"),
        (["aten::native_layer_norm_backward"], "norms and element by element"),
        (["aten::tanh"], "norms and element by element"),
        (["aten::t"], "views"),
        (["aten::as_strided"], "views"),
        (["aten::unsafe_split"], "norms and element by element"),
        (["MulBackward0"], "autograd and ranges"),
    ],
)
def test_an_operation_has_one_group(names, group):
    assert profiling.torch_group(names) == group


def test_a_torch_profile_adds_up():
    weight = torch.nn.Parameter(torch.randn(256, 256))
    optimizer = torch.optim.AdamW([weight])
    seen = []

    def step(number):
        seen.append(number)
        (torch.randn(512, 256) @ weight).tanh().sum().backward()
        optimizer.step()
        time.sleep(0.02)

    profile = profiling.of_torch("step", "a step", step, 3)
    assert seen == [0, 0, 1, 2, 0, 1, 2], "a warm-up, then the same steps without a profiler and with one"
    assert sum(row.seconds for row in profile.rows) == pytest.approx(profile.seconds, rel=1e-6)
    groups = {row.name: row for row in profile.groups()}
    products = next(row for row in profile.rows if row.name == "aten::mm")
    assert (products.group, products.calls) == ("matrix products", 2), "the product and that of its gradient"
    assert groups["optimizer and clipping"].seconds > 0
    assert groups[profiling.PYTHON].seconds >= 0.02, "what is no operation is counted too"
    assert 0 < profile.plain < profile.seconds


def test_a_python_profile_names_functions_without_this_machines_folders():
    def work(_):
        json.dumps(json.loads("[" + "1, " * 20_000 + "1]"))
        torch.ones(3).tolist()
        tempfile.gettempdir()
        torch.nn.Linear(2, 2)

    profile = profiling.of_python("x", "a call", work, 2, {"json/": "texts"})
    text = profile.markdown()
    assert "texts" in {row.name for row in profile.groups()}
    names = [row.name for row in profile.rows]
    assert any(name.startswith("json/decoder.py:") for name in names)
    assert any(name.startswith("torch/nn/modules/linear.py:") for name in names)
    assert not [name for name in names if name.startswith("/")]
    assert str(ROOT) not in text
    assert next(row for row in profile.rows if "linear.py" in row.name).group == "torch"
    assert (
        profiling.place(str(ROOT / "src" / "rexbert_hf" / "data" / "pack.py"), 7, "f") == "rexbert_hf/data/pack.py:7 f"
    )
    assert profiling.library("~", "built-in method torch.from_numpy") == "torch"
    assert profiling.library("~", "built-in method builtins.len") == "Python's own"


def test_the_nodes_of_a_graph_and_what_lies_between():
    def node(kind, dur):
        return {"cat": "Node", "name": f"n_{kind}_kernel_time", "dur": dur, "args": {"op_name": kind}}

    events = [{"cat": "Session", "name": "model_run", "dur": 1000}, node("MatMulInteger", 500), node("Softmax", 300)]
    events += [{"cat": "Node", "name": "n_fence_before", "dur": 9, "args": {"op_name": "MatMul"}}]
    profile = profiling.of_onnx("graph", "a run", events * 2, 2)
    found = {row.name: round(1e6 * row.seconds) for row in profile.groups()}
    assert found == {"matrix products": 500, "attention": 300, "between the nodes": 200}


def test_markdown():
    rows = [
        Row("a|b", "large", 3.0, 2_000),
        Row("c", "large", 0.99, 1),
        Row("d", "x", 0.006, 1),
        Row("e", "y", 0.004, 1),
    ]
    profile = Profile("path", "a thing", 4, 4.0, 3.5, rows)
    assert profile.markdown().splitlines() == [
        "## path: a thing",
        "",
        "4 s under the profiler, 3.5 s (of the processor) without; means of 4.",
        "",
        "| group | share | seconds | calls |",
        "| --- | ---: | ---: | ---: |",
        "| large | 99.8% | 3.99 | 2,001 |",
        "| 2 smaller ones | 0.2% | 0.01 | 2 |",
        "",
        "| most time | of group | share | seconds | calls |",
        "| --- | --- | ---: | ---: | ---: |",
        "| `a/b` | large | 75.0% | 3 | 2,000 |",
        "| `c` | large | 24.8% | 0.99 | 1 |",
    ]
    assert [(reading.name, reading.ours) for reading in profile.readings()] == [
        ("profiles/path", 3.5),
        ("profiles/path/large", 3.99 / 4.0),
    ]


def test_a_path_runs_alone(tmp_path, monkeypatch, capsys):
    out = tmp_path / "profile.md"
    monkeypatch.setattr(sys, "argv", ["profiles.py", "--quick", "--only", "ahm_collate", "--out", str(out)])
    threads = torch.get_num_threads()
    try:
        profiles.main()
    finally:
        torch.set_num_threads(threads)
    entries = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert entries[0]["name"] == "profiles/ahm_collate"
    assert out.read_text().startswith("## ahm_collate: ")
    assert "rexbert_hf/masking/" in out.read_text()


def test_all_paths_one_after_the_other_and_a_failure_is_named(monkeypatch, capsys):
    commands = []

    def run_group(command, seconds):
        commands.append(command[2:4])
        out = command[command.index("--out") + 1]
        with open(out, "w", encoding="utf-8") as file:
            file.write(f"## {command[3]}\n")
        status = 1 if command[3] == "encode" else 0
        return processes.Ended(status, f"said\n[{len(commands)}]\n", "first\nlast word\n")

    monkeypatch.setattr(profiles, "run_group", run_group)
    monkeypatch.setattr(sys, "argv", ["profiles.py"])
    with pytest.raises(SystemExit, match="error: encode: last word"):
        profiles.main()
    monkeypatch.setattr(sys, "argv", ["profiles.py", "--only", "tokenise", "curate"])
    commands.clear()
    profiles.main()
    assert commands == [["--only", "tokenise"], ["--only", "curate"]]
    said = capsys.readouterr().out
    assert said.strip().splitlines()[-1] == "[1, 2]"
    assert "\n## tokenise\n" in said
