"""`--push_to_hub`: a run on a data set of a Hub, pushed to it, and pulled by a process without the package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / room) for room in ("hub", "pretraining")]

from hub_server import TOKEN, HubServer  # noqa: E402
from huggingface_hub import HfApi  # noqa: E402
from pretraining_cases import start, words  # noqa: E402

from rexbert_hf.hub import read_run  # noqa: E402

PULL = """
import sys


class NoPackage:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "rexbert_hf":
            raise ImportError("not here")


sys.meta_path.insert(0, NoPackage())
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("tester/rex")
batch = tokenizer(["red [MASK] lamp", "a kettle"], padding=True, return_tensors="pt")
ours = AutoModelForMaskedLM.from_pretrained("tester/rex", trust_remote_code=True).eval()
stock = AutoModelForMaskedLM.from_pretrained("tester/rex", subfolder="modernbert").eval()
hidden = AutoModel.from_pretrained("tester/rex", trust_remote_code=True).eval()(**batch).last_hidden_state
assert "rexbert_hf" not in sys.modules and type(ours).__name__ == "RexBertForMaskedLM", type(ours)
token = batch["attention_mask"].bool()
with torch.no_grad():
    a, b = ours(**batch).logits[token], stock(**batch).logits[token]
torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
print("PULLED", tuple(hidden.shape), float(a.std()) > 0.01)
"""


def test_pushed_by_the_recipe_pulled_without_the_package(tmp_path):
    texts = [f"shelf number {i} is made of solid oak and holds {i % 9} books" for i in range(200)]
    with HubServer(tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token=TOKEN)
        api.create_repo("tester/texts", repo_type="dataset")
        lines = "".join(json.dumps({"body": text}) + "\n" for text in texts).encode()
        api.upload_file(path_or_fileobj=lines, path_in_repo="train.jsonl", repo_id="tester/texts", repo_type="dataset")
        commit = api.dataset_info("tester/texts").sha
        changes = {
            "sources__general": "{path: tester/texts, columns: {text: body}, max_documents: 150}",
            "push_to_hub": "tester/rex",
        }
        process = start(words(tmp_path / "out", **changes), **hub.environment(tmp_path / "pusher"))
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err[-4000:]
        assert f"pushed to {hub.endpoint}/tester/rex" in out
        files = hub.files("tester/rex")
        pulled = subprocess.run(
            [sys.executable, "-c", PULL],
            env=hub.environment(tmp_path / "puller"),
            capture_output=True,
            text=True,
            timeout=240,
        )
    assert pulled.returncode == 0, pulled.stderr[-4000:]
    assert "PULLED (2, " in pulled.stdout
    assert pulled.stdout.strip().endswith("True")

    assert {"README.md", "run.json", "tokenizer.json", "modeling_rexbert.py", "modernbert/model.safetensors"} <= set(
        files
    )
    assert not [name for name in files if name.startswith(("checkpoint-", "cache"))]
    source = next(source for source in read_run(tmp_path / "out")["data"] if source["name"] == "general")
    assert (source["repo_id"], source["revision"]) == ("tester/texts", commit)
    assert 100 < source["documents"] + source["held_out_documents"] < 150  # the rest is the test split
    card = files["README.md"].decode()
    assert commit[:7] in card
    assert "tester/rex" in card
    assert TOKEN not in card + files["run.json"].decode()
