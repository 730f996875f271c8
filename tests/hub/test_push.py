"""What is pushed of a run, what is not, and what the user hears when the Hub is in trouble."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
from hub_server import TOKEN, HubServer
from huggingface_hub import DatasetCard, HfApi, ModelCard, constants
from safetensors.numpy import load_file, save_file

from rexbert_hf.evaluation.evaluate import evaluate
from rexbert_hf.evaluation.settings import EvaluateSettings
from rexbert_hf.hub import push_dataset, push_run, render_dataset_card, trouble
from rexbert_hf.hub.__main__ import main

PUSHED = {
    ".gitattributes",
    "README.md",
    "config.json",
    "model.safetensors",
    "modernbert/config.json",
    "modernbert/model.safetensors",
    "run.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


def push(folder: Path, hub: HubServer, repo_id: str = "tester/tiny", **options: object) -> str:
    return push_run(folder, repo_id, **{"token": TOKEN, "endpoint": hub.endpoint, **options})


def commits(hub: HubServer, repo_id: str = "tester/tiny") -> int:
    return len(HfApi(endpoint=hub.endpoint, token=TOKEN).list_repo_commits(repo_id))


def test_a_run_goes_up_in_one_commit_without_its_litter(hub: HubServer, tiny_run: Path):
    assert push(tiny_run, hub) == f"{hub.endpoint}/tester/tiny"
    files = hub.files("tester/tiny")
    assert set(files) == PUSHED
    assert files["model.safetensors"] == (tiny_run / "model.safetensors").read_bytes()
    assert commits(hub) == 2  # the Hub's own first one, and this


def test_neither_paths_nor_tokens_reach_the_hub(hub: HubServer, tiny_run: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    push(tiny_run, hub)
    for name, data in hub.files("tester/tiny").items():
        assert str(tiny_run).encode() not in data, name
        assert TOKEN.encode() not in data, name
        assert b"hf_aaaa" not in data, name
    assert TOKEN not in caplog.text
    run = json.loads(hub.files("tester/tiny")["run.json"])
    assert run["config"] == {"output_dir": ".", "hub_token": "<redacted>", "max_tokens": 1000}


def test_pushing_twice_changes_nothing(hub: HubServer, tiny_run: Path):
    push(tiny_run, hub)
    push(tiny_run, hub)
    assert commits(hub) == 2


def test_the_card_names_the_repository_and_shows_what_was_measured(hub: HubServer, tiny_run: Path):
    push(tiny_run, hub)
    card = ModelCard(hub.files("tester/tiny")["README.md"].decode())
    assert 'from_pretrained("tester/tiny", subfolder="modernbert")' in card.text
    assert card.data.eval_results[0].metric_value == 0.125
    assert "trust_remote_code" not in card.text  # no model code lies in this folder
    assert "![" not in card.text  # and no plot


def test_what_an_evaluation_measured_is_in_the_model_index_on_the_hub(
    hub: HubServer, copy_of_run: Callable[[], Path], tmp_path: Path
):
    folder = copy_of_run()
    chosen = {"tasks": ["masked_recovery"], "resamples": 100, "device": "cpu", "output_dir": str(tmp_path / "out")}
    evaluate(EvaluateSettings(models=[str(folder)], update_cards=True, **chosen))

    def shown() -> dict[str, float]:
        push(folder, hub)
        card = ModelCard(hub.files("tester/tiny")["README.md"].decode())
        return {result.metric_name: result.metric_value for result in card.data.eval_results}

    figures = shown()
    (entry,) = json.loads(hub.files("tester/tiny")["evaluation.json"])["metrics"]
    assert figures["byte_accuracy@1"] == entry["metric_value"]
    assert "masked-token accuracy" in figures
    # Trained on since: the figures of the model before are not this one's.
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    assert set(shown()) == {"masked-token accuracy"}


def test_what_people_wrote_on_the_hub_stays(hub: HubServer, tiny_run: Path):
    push(tiny_run, hub)
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    text = hub.files("tester/tiny")["README.md"].decode().replace("---\n<!--", "license: mit\n---\nOur note.\n<!--")
    edited = text.replace("| 12.5 % |", "| 99 % |")
    assert edited.count("Our note.") == 1
    assert "| 99 % |" in edited
    api.upload_file(path_or_fileobj=edited.encode(), path_in_repo="README.md", repo_id="tester/tiny")
    push(tiny_run, hub)
    card = ModelCard(hub.files("tester/tiny")["README.md"].decode())
    assert card.data.license == "mit"
    assert "Our note." in card.text
    assert "| 12.5 % |" in card.text  # the rendered part is rendered anew


def test_what_people_write_here_goes_up_unless_the_hub_has_other_words(
    hub: HubServer, copy_of_run: Callable[[], Path], caplog: pytest.LogCaptureFixture
):
    folder = copy_of_run()
    readme = folder / "README.md"

    def pushed() -> str:
        caplog.clear()
        push(folder, hub)
        return hub.files("tester/tiny")["README.md"].decode()

    readme.write_text(pushed().replace("---\n<!--", "license: mit\n---\nOur note.\n<!--"))
    assert "Our note." in pushed()
    readme.write_text(readme.read_text().replace("Our note.", "Our note. Read on."))
    text = pushed()
    assert "Our note. Read on." in text
    assert not caplog.records
    edited = text.replace("Our note.", "Their note.").replace("license: mit", "license: other")
    HfApi(endpoint=hub.endpoint, token=TOKEN).upload_file(
        path_or_fileobj=edited.encode(), path_in_repo="README.md", repo_id="tester/tiny"
    )
    text = pushed()
    assert "Their note. Read on." in text
    assert "Our note." not in text
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("rexbert_hf")]
    assert "tester/tiny" in line
    assert "its own license and text" in line


def test_weights_of_an_earlier_push_do_not_stay_beside_the_new_ones(
    hub: HubServer, copy_of_run: Callable[[], Path], tiny_run: Path
):
    push(tiny_run, hub)
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    for other in ("adapter.safetensors", "modernbert/old/model.safetensors", "notes.bin"):
        api.upload_file(path_or_fileobj=b"mine", path_in_repo=other, repo_id="tester/tiny")
    folder = copy_of_run()
    shard = "model-00001-of-00001.safetensors"
    (folder / "model.safetensors").rename(folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": shard}}))
    push(folder, hub)
    names = set(hub.files("tester/tiny"))
    assert {shard, "model.safetensors.index.json", "modernbert/model.safetensors"} <= names
    assert "model.safetensors" not in names
    assert {"adapter.safetensors", "modernbert/old/model.safetensors", "notes.bin"} <= names


def test_nothing_that_an_earlier_push_left_decides_what_the_model_computes(
    hub: HubServer, copy_of_run: Callable[[], Path], tiny_run: Path
):
    folder = copy_of_run()
    modules = json.dumps([{"path": name} for name in ("", "1_Pooling", "2_Dense")])
    left = {"modules.json": modules, "1_Pooling/config.json": '{"truncate_dim": 8}', "added_tokens.json": "{}"}
    left |= {"config_sentence_transformers.json": '{"truncate_dim": 8}', "2_Dense/config.json": "{}"}
    left |= {"special_tokens_map.json": "{}", "modernbert/1_Pooling/config.json": "{}", "onnx/encoder.json": "{}"}
    left |= {"onnx/model.onnx": "graph", "onnx/onnx_encoder.py": "", "modernbert/modules.json": modules}
    for name, text in left.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    shutil.copy(folder / "model.safetensors", folder / "2_Dense")
    push(folder, hub)
    assert {*left, "2_Dense/model.safetensors"} <= set(hub.files("tester/tiny"))
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    own = {"demo.py", "notes/config.json", "2024_notes/config.json", "LICENSE", "picture.png", "1_Notes/readme.json"}
    for name in own:
        api.upload_file(path_or_fileobj=b"mine", path_in_repo=name, repo_id="tester/tiny")
    push(tiny_run, hub)
    assert set(hub.files("tester/tiny")) == PUSHED | own


def test_graphs_that_others_made_of_the_same_weights_stay(
    hub: HubServer, copy_of_run: Callable[[], Path], tiny_run: Path
):
    push(tiny_run, hub)
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    theirs = {"onnx/model.onnx", "onnx/model_quantized.onnx", "onnx/model.onnx_data"}
    for name in theirs:
        api.upload_file(path_or_fileobj=b"theirs", path_in_repo=name, repo_id="tester/tiny")
    push(tiny_run, hub)
    assert set(hub.files("tester/tiny")) == PUSHED | theirs
    folder, tensors = copy_of_run(), load_file(tiny_run / "model.safetensors")
    save_file({name: value + 1 for name, value in tensors.items()}, folder / "model.safetensors")
    push(folder, hub)
    assert set(hub.files("tester/tiny")) == PUSHED


def test_revision_and_tag(hub: HubServer, tiny_run: Path):
    push(tiny_run, hub, revision="stable", tag="v1")
    assert set(hub.files("tester/tiny", revision="v1")) == PUSHED
    assert set(hub.files("tester/tiny", revision="stable")) == PUSHED
    assert set(hub.files("tester/tiny")) == {".gitattributes"}
    with pytest.raises(ValueError, match="tester/tiny has a tag v1 already"):
        push(tiny_run, hub, tag="v1")


def test_private_repositories_are_private(hub: HubServer, tiny_run: Path):
    push(tiny_run, hub, private=True)
    assert HfApi(endpoint=hub.endpoint, token=TOKEN).model_info("tester/tiny").private
    assert not HfApi(endpoint=hub.endpoint, token=False).repo_exists("tester/tiny")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/api/repos/create", 429),
        ("POST", "/preupload/", 503),
        ("POST", "/commit/", 500),
        ("GET", "/tree/", 502),
    ],
)
def test_passing_trouble_is_waited_out(hub: HubServer, tiny_run: Path, method: str, path: str, status: int):
    fault = hub.fail(status=status, method=method, path=path)
    push(tiny_run, hub)
    assert fault.times == 0
    assert set(hub.files("tester/tiny")) == PUSHED
    assert commits(hub) == 2


def test_cut_uploads_are_repeated_and_the_bytes_are_right(hub: HubServer, tiny_run: Path):
    faults = [hub.fail("cut", method="PUT"), hub.fail("cut", path="/commit/")]
    push(tiny_run, hub)
    assert [fault.times for fault in faults] == [0, 0]
    assert hub.files("tester/tiny")["model.safetensors"] == (tiny_run / "model.safetensors").read_bytes()


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub: HubServer, tiny_run: Path):
    fault = hub.fail("lost", path="/commit/")
    push(tiny_run, hub, tag="v1")
    assert fault.times == 0
    assert commits(hub) == 2
    assert set(hub.files("tester/tiny", revision="v1")) == PUSHED


def test_the_wait_is_the_one_that_the_hub_asks_for(
    hub: HubServer, tiny_run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(trouble, "LONGEST_WAIT_SECONDS", 0.25)
    waits: list[float] = []
    monkeypatch.setattr(trouble, "time", SimpleNamespace(sleep=waits.append))
    hub.fail(status=429, path="/api/repos/create", headers={"Retry-After": "0.125"})
    hub.fail(status=500, path="/api/repos/create")
    hub.fail(status=429, path="/api/repos/create", headers={"Retry-After": "3600"})
    push(tiny_run, hub)
    assert waits == [0.125, 0.02, 0.25]
    assert "pushing to tester/tiny: HfHubHTTPError; trying again" in caplog.text


def test_what_the_hub_refuses_is_the_users_to_mend(hub: HubServer, copy_of_run: Callable[[], Path]):
    folder = copy_of_run()
    (folder / "README.md").write_text("---\nlicense: {a: 1}\n---\ntext")
    with pytest.raises(ValueError, match=r'refused it \(status 400: .*"license" must be a string\); the model is safe'):
        push(folder, hub)


def test_code_that_the_configuration_names_must_be_there(hub: HubServer, copy_of_run: Callable[[], Path]):
    folder = copy_of_run()
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_x.Model", "AutoConfig": "other/repo--configuration_y.Config"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileNotFoundError, match=r"config.json names modeling_x.py, not there: save the model with"):
        push(folder, hub)
    (folder / "modeling_x.py").write_text("")
    push(folder, hub)
    assert "modeling_x.py" in hub.files("tester/tiny")


def test_a_hub_that_stays_in_trouble_leaves_one_line_and_no_half_push(
    hub: HubServer, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trouble, "RETRIES", 2)
    hub.fail(status=503, times=3, path="/commit/")
    with pytest.raises(ConnectionError) as caught:
        push(tiny_run, hub, tag="v2")
    message = str(caught.value)
    assert "\n" not in message
    assert "503" in message
    assert f"the model is safe in {tiny_run}" in message
    assert f"python -m rexbert_hf.hub push {tiny_run} tester/tiny --tag v2" in message
    assert set(hub.files("tester/tiny")) == {".gitattributes"}


def test_a_hub_that_is_not_there(tiny_run: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trouble, "RETRIES", 1)
    hub.close()
    with pytest.raises(ConnectionError, match=r"tester/tiny was not pushed .* \(.*refused.*safe in"):
        push(tiny_run, hub)


@pytest.mark.timeout(60)
def test_a_silent_hub_does_not_hang_the_job(hub: HubServer, tiny_run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trouble, "REQUEST_TIMEOUT_SECONDS", 2.0)
    monkeypatch.setattr(trouble, "RETRIES", 0)
    hub.fail("hang", path="/commit/")
    with pytest.raises(ConnectionError, match="ReadTimeout"):
        push(tiny_run, hub)
    hub.fail("hang", path="/api/models/tester/tiny$")  # whether the tag exists is asked without a limit of its own
    with pytest.raises(ConnectionError, match="ReadTimeout"):
        push(tiny_run, hub, tag="v1")


def test_a_token_that_may_not_write_is_not_tried_again(hub: HubServer, tiny_run: Path):
    with pytest.raises(PermissionError, match=r"401.*hf auth login.*safe in") as caught:
        push(tiny_run, hub, token="hf_" + "w" * 30)
    assert "wwww" not in str(caught.value)
    assert sum(path == "/api/repos/create" for _, path, _ in hub.requests) == 1


def test_what_is_not_a_finished_model_is_not_pushed(hub: HubServer, copy_of_run: Callable[[], Path], tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"config.json and \*.safetensors missing"):
        push(tmp_path, hub)
    folder = copy_of_run()
    weights = (folder / "modernbert" / "model.safetensors").read_bytes()
    (folder / "modernbert" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match=r"modernbert/model.safetensors is damaged .*save the model again"):
        push(folder, hub)
    shutil.copy(folder / "model.safetensors", folder / "modernbert")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"w": "model-7.safetensors"}}')
    for _ in range(2):  # then under a name that is no weight file's, so it would not go up
        with pytest.raises(FileNotFoundError, match=r"names model-7.safetensors"):
            push(folder, hub)
        shutil.copy(folder / "model.safetensors", folder / "model-7.safetensors")
    assert hub.requests == []


@pytest.mark.parametrize("name", ["config.json", "modernbert/config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"weight_map": {"w', "Unterminated string"),
        (b"", "Expecting value"),
        (b"\xff\xfe", "codec can't decode"),
        (b"[1]", "is no JSON object"),
        (b"7", "is no JSON object"),
        (b'{"weight_map": ["w"], "auto_map": "x"}', "its (weight|auto)_map, is no JSON object"),
        (b"[" * 100_000, "is no JSON object"),
    ],
)
def test_damaged_json_is_one_line_that_names_the_file(
    hub: HubServer, copy_of_run: Callable[[], Path], name: str, text: bytes, message: str
):
    folder = copy_of_run()
    (folder / name).write_bytes(text)
    with pytest.raises(ValueError, match=rf"{name} is damaged \(.*{message}.*\): save the model again") as caught:
        push(folder, hub)
    assert "\n" not in str(caught.value)
    assert hub.requests == []


def test_links_out_of_the_folder_are_not_followed(hub: HubServer, copy_of_run: Callable[[], Path], tmp_path: Path):
    (tmp_path / "secret.png").write_text("secret")
    folder = copy_of_run()
    (folder / "loss.png").symlink_to(tmp_path / "secret.png")
    push(folder, hub)
    assert set(hub.files("tester/tiny")) == PUSHED


def test_a_bad_repository_name_and_a_bad_card_are_one_line(hub: HubServer, copy_of_run: Callable[[], Path]):
    folder = copy_of_run()
    with pytest.raises(ValueError, match=r"tester/a--b"):
        push(folder, hub, "tester/a--b")
    (folder / "README.md").write_text("---\ntags: [a\nb: c\n---\ntext")
    with pytest.raises(ValueError, match=r"README.md, line \d: the metadata block is not valid YAML"):
        push(folder, hub)


def test_the_command_line_says_what_went_wrong_and_returns_it(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    assert main(["push", str(tmp_path), "tester/tiny"]) == 1
    assert "holds no finished model" in caplog.text


def test_the_command_line_renders_a_card(copy_of_run: Callable[[], Path]):
    folder = copy_of_run()
    (folder / "README.md").write_text("Mine.\n")
    assert main(["card", str(folder), "--repo_id", "a/b"]) == 0
    text = (folder / "README.md").read_text()
    assert text.endswith("---\nMine.\n")
    assert "pipeline_tag: fill-mask" in text


@pytest.fixture
def default_hub(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The Hub of this test as the one that HF_ENDPOINT would have named: `datasets` takes no endpoint."""
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.endpoint)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    return hub


ROWS = datasets.Dataset.from_dict({"text": ["a", "b"]})
CARD = render_dataset_card(repo_id="tester/d", license="odc-by", summary="Ours.")


def readme(hub: HubServer) -> DatasetCard:
    return DatasetCard(hub.files("tester/d", "dataset")["README.md"].decode())


def test_a_dataset_and_its_card_go_up_and_again_without_a_change(default_hub: HubServer):
    for _ in range(2):
        assert push_dataset(ROWS, "tester/d", card=CARD, token=TOKEN) == f"{default_hub.endpoint}/datasets/tester/d"
    assert readme(default_hub).data.license == "odc-by"
    assert "Ours." in readme(default_hub).text
    assert readme(default_hub).data.configs[0]["config_name"] == "default"
    commits = api_of(default_hub).list_repo_commits("tester/d", repo_type="dataset")
    assert [commit.title for commit in commits].count("Update the card") == 1


def test_what_people_wrote_about_a_dataset_stays(default_hub: HubServer):
    push_dataset(ROWS, "tester/d", token=TOKEN)
    mine = readme(default_hub)
    mine.text = "\n# Mine\n"
    mine.data.license = "mit"
    api = api_of(default_hub)
    upload = {"path_in_repo": "README.md", "repo_id": "tester/d", "repo_type": "dataset"}
    api.upload_file(path_or_fileobj=str(mine).encode(), **upload)
    push_dataset(ROWS, "tester/d", "more", card=CARD, token=TOKEN)
    assert readme(default_hub).text.strip() == "# Mine"
    assert readme(default_hub).data.license == "mit"
    assert readme(default_hub).data.tags == ["rexbert", "e-commerce"]
    assert {config["config_name"] for config in readme(default_hub).data.configs} == {"default", "more"}


def test_a_dataset_waits_trouble_out_and_names_what_stays(default_hub: HubServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trouble, "RETRIES", 1)
    default_hub.fail(status=500, path="/commit/")
    push_dataset(ROWS, "tester/d", card=CARD, token=TOKEN)
    assert readme(default_hub).data.license == "odc-by"
    default_hub.fail(status=503, path="/commit/", times=2)
    with pytest.raises(
        ConnectionError, match=r"dataset tester/d was not pushed to http.* answered 503 .*push it again"
    ):
        push_dataset(ROWS, "tester/d", "more", token=TOKEN)
    with pytest.raises(PermissionError, match="401"):
        push_dataset(ROWS, "tester/new", token="hf_wrong")


def api_of(hub: HubServer) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=TOKEN)
