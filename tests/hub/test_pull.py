"""A folder or a name becomes a folder with the right bytes, or one line says why not."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_server import TOKEN, HubServer
from huggingface_hub import HfApi, constants, scan_cache_dir, snapshot_download

from rexbert_hf.corpus.documents import DocumentSource
from rexbert_hf.corpus.revisions import held_sources
from rexbert_hf.hub import pull as pulling
from rexbert_hf.hub import resolve, resolve_model, trouble
from rexbert_hf.pretraining.source_settings import SourceSettings
from rexbert_hf.pretraining.sources import pinned

WEIGHTS = b"x" * 1000


@pytest.fixture
def repo(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(trouble, "RETRIES", 1)
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    api.create_repo("tester/m")
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="tester/m")
    api.create_tag("tester/m", tag="v1")
    api.upload_file(path_or_fileobj=WEIGHTS, path_in_repo="m.safetensors", repo_id="tester/m")
    return "tester/m"


def pull(hub: HubServer, name: str, cache: Path, **options: object) -> Path:
    return resolve(name, **{"token": TOKEN, "endpoint": hub.endpoint, "cache_dir": cache, **options})


def no_such_host(number: int) -> Callable[..., None]:
    """A name server that knows no host, or does not answer."""

    def look_up(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "as told")

    return look_up


def test_a_folder_is_returned_as_it_is(tmp_path: Path):
    assert resolve(tmp_path) == tmp_path
    with pytest.raises(ValueError, match="is a local folder and has no revision v1"):
        resolve(tmp_path, revision="v1")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file is a file: give its folder"):
        resolve(tmp_path / "file")


@pytest.mark.parametrize("name", ["./none", "/none/at/all", "~/none", "a/b/c"])
def test_what_looks_like_a_path_is_not_asked_from_the_hub(name: str):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        resolve(name, endpoint="http://127.0.0.1:9")


def test_the_home_of_an_unknown_user_is_no_folder():
    with pytest.raises(FileNotFoundError, match=r"^~nosuchuser/index: no such user here; write the folder out$"):
        resolve("~nosuchuser/index")


def test_a_repository_comes_down_whole_or_in_part_or_of_old(hub: HubServer, repo: str, tmp_path: Path):
    assert (pull(hub, repo, tmp_path) / "m.safetensors").read_bytes() == WEIGHTS
    old = pull(hub, repo, tmp_path, revision="v1")
    assert sorted(os.listdir(old)) == [".gitattributes", "config.json"]
    assert resolve(repo, token=TOKEN, endpoint=hub.endpoint).is_relative_to(constants.HF_HUB_CACHE)
    some = pull(hub, repo, tmp_path / "other", allow_patterns="*.json")
    assert os.listdir(some) == ["config.json"]


def test_of_a_model_only_what_torch_loads_comes_down(hub: HubServer, tmp_path: Path):
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    at_root = {"config.json", "tokenizer.json", "vocab.txt", "merges.txt", "spm.model", "chat_template.jinja"}
    of_modules = {"modules.json", "1_Pooling/config.json", "2_Dense/pytorch_model.bin", "2_Dense/config.json"}
    copies = {"onnx/model.onnx", "onnx/config.json", "tf_model.h5", "rust_model.ot", "modernbert/model.safetensors"}
    copies.add("spike-step-5-rank-0.safetensors")  # pushed by an older version: no part of the model
    for name, weights in (("tester/new", "model.safetensors"), ("tester/old", "pytorch_model.bin")):
        api.create_repo(name)
        for path in [*at_root, *of_modules, *copies, weights]:
            api.upload_file(path_or_fileobj=path.encode(), path_in_repo=path, repo_id=name)
        for modules, wanted in ((False, at_root | {"modules.json", weights}), (True, at_root | of_modules | {weights})):
            cache = tmp_path / f"{name}-{modules}"
            folder = resolve_model(name, modules=modules, token=TOKEN, endpoint=hub.endpoint, cache_dir=cache)
            assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == wanted
    api.upload_file(path_or_fileobj=b"x", path_in_repo="pytorch_model.bin", repo_id="tester/new")
    folder = resolve_model("tester/new", token=TOKEN, endpoint=hub.endpoint, cache_dir=tmp_path / "both")
    assert not (folder / "pytorch_model.bin").exists(), "the same weights as the safetensors"


def test_the_hub_may_be_gone_once_the_cache_is_full(hub: HubServer, repo: str, tmp_path: Path):
    first = pull(hub, repo, tmp_path)
    hub.close()
    assert pull(hub, repo, tmp_path) == first


def test_unknown_names_say_what_there_is(hub: HubServer, repo: str, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"cannot get model tester/none from http.*: no such repository; check"):
        pull(hub, "tester/none", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"tester/m at v9 .*no such revision; it has main, v1"):
        pull(hub, repo, tmp_path, revision="v9")
    with pytest.raises(ValueError, match="tester/a--b"):
        pull(hub, "tester/a--b", tmp_path)


def test_a_folder_of_nearly_that_name_is_named_before_the_hub_is_asked(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A mistyped folder looks like a name on the Hub, which may take a minute not to answer."""
    (tmp_path / "output" / "search").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no such repository; .*; did you mean output/search\?$"):
        pull(hub, "output/saerch", tmp_path / "cache")
    (message,) = [record.getMessage() for record in caplog.records if "did you mean" in record.getMessage()]
    assert message.startswith("there is no folder output/saerch, so the Hub is asked for it")
    with pytest.raises(FileNotFoundError, match=r"does not exist; did you mean output/search\?$"):
        resolve("./output/saerch")
    caplog.clear()
    with pytest.raises(FileNotFoundError, match=r"no such repository; .*private$"):
        pull(hub, "output/another", tmp_path / "cache")
    assert "did you mean" not in caplog.text


def test_a_folder_that_is_not_there_is_told_at_once_without_a_hub(
    hub: HubServer, repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Where its parent is a folder; a repository of a user of that name is pulled all the same."""
    for name in ("output", "tester"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    first = pull(hub, repo, tmp_path / "full")
    assert (first / "m.safetensors").read_bytes() == WEIGHTS
    hub.fail(status=503, path="/api/models/")
    assert pull(hub, repo, tmp_path / "other"), "a Hub that answers is asked again"
    with pytest.raises(FileNotFoundError, match=r"^output/my run does not exist, and is no name that the Hub allows: "):
        pull(hub, "output/my run", tmp_path / "cache")
    hub.close()
    monkeypatch.setattr(socket, "getaddrinfo", no_such_host(socket.EAI_NONAME))
    caplog.clear()
    nowhere = {"endpoint": "http://me:secret@hub.invalid"}
    told = (
        r"^output/nope does not exist, and the host of the Hub \(http://.*@hub.invalid\), or its .* is unknown: check"
    )
    for _ in range(2):  # the first try leaves nothing that the second could take for a repository
        with pytest.raises(FileNotFoundError, match=told) as caught:
            pull(hub, "output/nope", tmp_path / "cache", **nowhere)
    assert "secret" not in str(caught.value)
    assert "trying again" not in caplog.text
    assert pull(hub, repo, tmp_path / "full", **nowhere) == first
    with pytest.raises(ConnectionError, match="cannot get model none/nope"):
        pull(hub, "none/nope", tmp_path / "cache", **nowhere)
    assert caplog.text.count("trying again") == 1


@pytest.mark.parametrize("number", [None, socket.EAI_AGAIN])
def test_a_known_hub_that_cannot_be_reached_is_asked_again_and_named(
    hub: HubServer,
    repo: str,
    number: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    """Beside a folder of the user's name too: a refused connection, or a name server that is silent, may pass."""
    (tmp_path / "tester").mkdir()
    monkeypatch.chdir(tmp_path)
    hub.close()
    if number is not None:
        monkeypatch.setattr(socket, "getaddrinfo", no_such_host(number))
    with pytest.raises(ConnectionError, match=rf"^cannot get model {repo} from {hub.endpoint}: ConnectError \(.*Errno"):
        pull(hub, repo, tmp_path / "cache")
    assert caplog.text.count("trying again") == 1


@pytest.mark.parametrize(("number", "times"), [(socket.EAI_NONAME, 2), (socket.EAI_AGAIN, 4)])
def test_an_unknown_host_is_asked_for_once_more(monkeypatch: pytest.MonkeyPatch, number: int, times: int):
    monkeypatch.setattr(trouble, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(trouble, "RETRIES", 3)
    asked = []

    def ask() -> None:
        asked.append(1)
        raise ConnectionError("no way") from socket.gaierror(number, "as told")

    with pytest.raises(ConnectionError):
        trouble.with_retries(ask, "asking")
    assert len(asked) == times


def test_a_hub_in_trouble_is_asked_again_and_then_named(hub: HubServer, repo: str, tmp_path: Path):
    hub.fail(status=503, path="/api/models/")
    pull(hub, repo, tmp_path)
    hub.fail(status=503, times=2, path="/api/models/")
    with pytest.raises(ConnectionError, match="answered 503"):
        pull(hub, repo, tmp_path / "empty")
    hub.close()
    with pytest.raises(ConnectionError, match="refused"):
        pull(hub, repo, tmp_path / "empty")


@pytest.mark.timeout(60)
def test_a_silent_hub_is_named_and_nothing_waits_for_ever(hub: HubServer, repo: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(trouble, "REQUEST_TIMEOUT_SECONDS", 2.0)
    hub.fail("hang", times=2, path="/api/models/")
    with pytest.raises(ConnectionError, match="Timeout"):
        pull(hub, repo, tmp_path)
    hub.fail("hang", path="/api/models/")
    assert (pull(hub, repo, tmp_path) / "m.safetensors").read_bytes() == WEIGHTS  # the second try


@pytest.mark.timeout(60)
def test_a_silent_hub_does_not_keep_the_commits_of_data_sets(hub: HubServer, tmp_path: Path, monkeypatch, caplog):
    """Curation and pre-training ask for them before they read, and go on without."""
    monkeypatch.setattr(trouble, "REQUEST_TIMEOUT_SECONDS", 2.0)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    hub.fail("hang", times=2, path="/api/datasets/")
    (source,) = held_sources([DocumentSource(dataset="tester/d")], tmp_path / "revisions.json")
    assert source.revision is None
    assert pinned(SourceSettings(path="tester/d"), None)[1] == {"repo_id": "tester/d"}
    assert caplog.text.count("is unknown") == 2


def test_a_login_in_an_address_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trouble, "RETRIES", 0)
    with pytest.raises(ConnectionError, match="from http://<redacted>@127") as told:
        resolve("tester/m", endpoint="http://me:word@127.0.0.1:9", cache_dir=tmp_path)
    assert "word" not in str(told.value)
    reply = SimpleNamespace(headers={}, request=None, status_code=403)
    error = RuntimeError("Forbidden for url: https://store/x?X-Amz-Signature=abcd")
    error.__cause__ = trouble.HfHubHTTPError("no", response=reply)
    for status in (400, 500):
        reply.status_code = status
        assert "abcd" not in str(trouble.explain(error, "not pushed", "again"))


def test_a_wait_that_cannot_be_is_none():
    reply = SimpleNamespace(headers={"Retry-After": "-5"}, request=None, status_code=503)
    assert trouble.retry_after(trouble.HfHubHTTPError("later", response=reply)) == 0.0


def test_offline_is_said(hub: HubServer, repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE is set"):
        pull(hub, repo, tmp_path)


def test_damaged_bytes_are_found_and_removed(hub: HubServer, repo: str, tmp_path: Path):
    hub.fail("corrupt", method="GET", path="/cdn/")
    with pytest.raises(OSError, match=r"m.safetensors of tester/m arrived damaged .*try again"):
        pull(hub, repo, tmp_path)
    assert (pull(hub, repo, tmp_path) / "m.safetensors").read_bytes() == WEIGHTS
    hub.fail("corrupt", method="GET", path="resolve/.*/config.json")
    with pytest.raises(OSError, match=r"config.json of tester/m arrived damaged"):
        pull(hub, repo, tmp_path / "other")


def ending_with(error: BaseException):
    """A download of which everything arrived, and which then ends so."""

    def download(*arguments: object, **options: object) -> str:
        snapshot_download(*arguments, **options)
        raise error

    return download


def damaged_blobs(cache: Path) -> list[str]:
    return [
        path.name for path in cache.glob("*/blobs/*") if path.stat().st_size == 1000 and path.read_bytes() != WEIGHTS
    ]


def test_damage_of_a_killed_pull_is_found_by_the_next(hub: HubServer, repo: str, tmp_path: Path, monkeypatch):
    hub.fail("corrupt", method="GET", path="/cdn/")
    with monkeypatch.context() as patch:
        patch.setattr(pulling, "snapshot_download", ending_with(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            pull(hub, repo, tmp_path)
    assert damaged_blobs(tmp_path)
    with pytest.raises(OSError, match=r"m.safetensors of tester/m arrived damaged .*try again"):
        pull(hub, repo, tmp_path)
    assert (pull(hub, repo, tmp_path) / "m.safetensors").read_bytes() == WEIGHTS


def test_damage_of_a_pull_that_fails_is_removed_at_once(hub: HubServer, repo: str, tmp_path: Path, monkeypatch, caplog):
    hub.fail("corrupt", method="GET", path="/cdn/")
    with monkeypatch.context() as patch:
        patch.setattr(pulling, "snapshot_download", ending_with(ValueError("an odd one")))
        with pytest.raises(ValueError, match="an odd one"):
            pull(hub, repo, tmp_path)
    assert not damaged_blobs(tmp_path)
    assert "m.safetensors of tester/m arrived damaged" in caplog.text
    assert (pull(hub, repo, tmp_path) / "m.safetensors").read_bytes() == WEIGHTS


def test_a_file_is_read_for_its_hash_once_and_again_when_it_is_another(
    hub: HubServer, repo: str, tmp_path: Path, monkeypatch
):
    cache, read = tmp_path / "cache", list[str]()
    digest = pulling._digest
    monkeypatch.setattr(pulling, "_digest", lambda path, large: read.append(path.name) or digest(path, large))
    folder = pull(hub, repo, cache)
    assert len(read) == 3
    pull(hub, repo, cache)
    assert len(read) == 3
    assert not scan_cache_dir(cache).warnings
    blob = (folder / "m.safetensors").resolve()
    blob.write_bytes(b"y" * 1000)
    with pytest.raises(OSError, match=r"m.safetensors of tester/m arrived damaged"):
        pull(hub, repo, cache)
    assert read[3:] == [blob.name]


def test_all_damaged_files_are_named_and_removed(hub: HubServer, repo: str, tmp_path: Path):
    hub.fail("corrupt", method="GET", path="/cdn/")
    hub.fail("corrupt", method="GET", path="resolve/.*/config.json")
    with pytest.raises(OSError, match=r"arrived damaged .*; .* arrived damaged .*; try again"):
        pull(hub, repo, tmp_path)
    folder = pull(hub, repo, tmp_path)
    assert ((folder / "m.safetensors").read_bytes(), (folder / "config.json").read_bytes()) == (WEIGHTS, b"{}")


def test_a_cut_download_is_taken_up_again(hub: HubServer, repo: str, tmp_path: Path):
    fault = hub.fail("cut", method="GET", path="/cdn/")
    assert (pull(hub, repo, tmp_path) / "m.safetensors").read_bytes() == WEIGHTS
    assert fault.times == 0
