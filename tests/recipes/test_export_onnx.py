"""The export recipe on its default: graphs beside their measurements."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from rexbert_hf.hub import read_run
from rexbert_hf.retrieval.serving import onnx_recipe
from rexbert_hf.retrieval.serving.onnx_encoder import OnnxEncoder
from rexbert_hf.retrieval.serving.onnx_recipe import ExportOnnxRun, LatencySettings, run_export_onnx
from rexbert_hf.retrieval.training.search_data import TEST, SearchDataSettings, load_search_data

ROOT = Path(__file__).parents[2]


def test_an_export_names_its_model_and_leaves_no_graph_of_another(tmp_path, monkeypatch):
    sys.path.insert(0, str(ROOT / "tests" / "retrieval"))
    from onnx_cases import small_encoder

    small_encoder().save_pretrained(str(tmp_path / "student"))
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model_int8.onnx").write_bytes(b"of another model")
    few = SearchDataSettings(sample_size=60)
    run = ExportOnnxRun(
        model=str(tmp_path / "student"), output_dir=tmp_path / "onnx", precisions=["fp32"], data=few, max_queries=2,
        max_products=40, latency=LatencySettings(repeats=1, torch=False),
    )  # fmt: skip
    seen, stock = {}, onnx_recipe.encode
    monkeypatch.setattr(
        onnx_recipe, "encode", lambda model, texts, role: seen.update({role: texts}) or stock(model, texts, role)
    )
    run_export_onnx(run)
    # Files are often sorted, so neither queries nor products are the first ones.
    data = load_search_data(few)
    tests = data.of(TEST)
    assert len(seen["query"]) == 2 < len(tests)
    assert seen["query"] != [data.queries[i] for i in tests[:2]]
    assert set(seen["query"]) < {data.queries[i] for i in tests}
    judged = data.judged.select(np.array([data.queries.index(text) for text in seen["query"]])).products
    others = [i for i in range(60) if i not in judged]
    assert len(seen["document"]) == 40
    assert {data.texts[i] for i in judged} < set(seen["document"])
    assert {data.texts[i] for i in others[: 40 - len(set(judged))]} - set(seen["document"])
    assert OnnxEncoder(tmp_path / "onnx").name == "student"
    assert not (tmp_path / "onnx" / "model_int8.onnx").exists()


def test_an_export_whose_push_fails_keeps_what_was_measured(tmp_path, monkeypatch):
    def refused(*args, **options):
        raise PermissionError("no token")

    monkeypatch.setattr(onnx_recipe, "push_onnx", refused)
    run = ExportOnnxRun(
        output_dir=tmp_path / "onnx", precisions=["fp32"], data=SearchDataSettings(sample_size=60), max_queries=2,
        max_products=40, latency=LatencySettings(repeats=1, torch=False), push_to_hub="tester/onnx",
    )  # fmt: skip
    with pytest.raises(PermissionError, match="no token"):
        run_export_onnx(run)
    assert read_run(tmp_path / "onnx")["results"]["latency_ms"].keys() == {"fp32"}
    monkeypatch.setattr(onnx_recipe, "push_onnx", lambda *_, **__: "https://hub/tester/onnx")
    results = run_export_onnx(run)
    assert read_run(tmp_path / "onnx")["results"]["url"] == results["url"] == "https://hub/tester/onnx"


def test_the_default_exports_and_measures(tmp_path):
    command = [sys.executable, str(ROOT / "recipes" / "export_onnx.py"), "--output_dir", str(tmp_path / "onnx")]
    command += ["--data.sample_size", "60", "--latency.repeats", "5", "--max_queries", "20"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    run = json.loads((tmp_path / "onnx" / "run.json").read_text())["results"]
    assert run["difference"]["fp32"]["largest"] < 1e-4
    assert run["difference"]["int8"]["mean_cosine"] > 0.95
    assert run["latency_ms"].keys() == {"fp32", "int8", "torch"}
    assert run["quality"]["fp32"]["overlap_with_torch"] > 0.99
    assert run["quality"]["fp32"]["recall_at_100"] == pytest.approx(run["quality"]["torch"]["recall_at_100"], abs=0.01)
    assert run["quality"]["torch"]["points_lost"] == 0
    for name in ("fp32", "int8"):
        found = run["quality"][name]
        lost = 100 * (run["quality"]["torch"]["recall_at_100"] - found["recall_at_100"])
        assert found["points_lost"] == pytest.approx(lost)
        assert f"torch minus {name} {lost:+.2f} points of recall@100" in done.stdout
        said = f"{name}   recall@100 {found['recall_at_100']:.4f} (judged@100 {found['judged_at_100']:.4f}, condensed "
        assert said + f"{found['condensed_recall_at_100']:.4f})" in done.stdout
    assert "its quality means nothing" in done.stdout
    assert OnnxEncoder(tmp_path / "onnx").encode("lamp").shape == (256,)
    assert not list((tmp_path / "onnx").glob(".export-*"))
