"""The local Hub answers huggingface_hub as the Hub does, and breaks when it is told to."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from hub_server import TOKEN, HubServer
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=TOKEN)


def test_files_go_up_and_come_down_by_both_ways(hub: HubServer, api: HfApi, tmp_path: Path):
    url = api.create_repo("tester/a")
    assert (url.repo_id, str(url)) == ("tester/a", f"{hub.endpoint}/tester/a")
    large = bytes(range(256)) * 4096
    api.upload_file(path_or_fileobj=large, path_in_repo="model.safetensors", repo_id="tester/a")
    folder = tmp_path / "up"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "x.txt").write_text("deep")
    api.upload_folder(folder_path=folder, repo_id="tester/a")

    pulled = Path(api.snapshot_download("tester/a", cache_dir=tmp_path / "cache"))
    assert (pulled / "model.safetensors").read_bytes() == large
    assert (pulled / "sub" / "x.txt").read_text() == "deep"
    info = api.model_info("tester/a", files_metadata=True)
    sizes = {sibling.rfilename: (sibling.size, bool(sibling.lfs)) for sibling in info.siblings}
    assert sizes["model.safetensors"] == (len(large), True)
    assert sizes["config.json"] == (2, False)
    # The large file took the LFS way, the small ones came with the commit.
    puts = [path for method, path, _ in hub.requests if method == "PUT"]
    assert len(puts) == 1
    assert puts[0].startswith("/lfs/")


def test_unchanged_files_are_recognised_and_deleted_ones_are_gone(hub: HubServer, api: HfApi):
    api.create_repo("tester/a")
    for _ in range(2):
        api.upload_file(path_or_fileobj=b"x" * 100, path_in_repo="w.bin", repo_id="tester/a")
        api.upload_file(path_or_fileobj=b"text", path_in_repo="a/b.txt", repo_id="tester/a")
    assert len(api.list_repo_commits("tester/a")) == 3
    api.delete_file("w.bin", "tester/a")
    api.delete_folder("a", "tester/a")
    assert api.list_repo_files("tester/a") == [".gitattributes"]


def test_tree_paths_and_ranges(hub: HubServer, api: HfApi):
    api.create_repo("tester/d", repo_type="dataset")
    for path in ("data/a/0.parquet", "data/b.csv", "top.csv"):
        api.upload_file(path_or_fileobj=b"0123456789", path_in_repo=path, repo_id="tester/d", repo_type="dataset")
    top = {item.path for item in api.list_repo_tree("tester/d", repo_type="dataset")}
    assert top == {".gitattributes", "data", "top.csv"}
    inside = {item.path for item in api.list_repo_tree("tester/d", "data", recursive=True, repo_type="dataset")}
    assert inside == {"data/a", "data/a/0.parquet", "data/b.csv"}
    infos = api.get_paths_info("tester/d", ["data", "data/b.csv", "missing"], repo_type="dataset")
    assert [type(info).__name__ for info in infos] == ["RepoFolder", "RepoFile"]
    for path in ("data/a/0.parquet", "data/b.csv"):
        address = f"{hub.endpoint}/datasets/tester/d/resolve/main/{path}"
        for wanted, expected in (("bytes=2-4", b"234"), ("bytes=7-", b"789"), ("bytes=-2", b"89")):
            request = urllib.request.Request(address, headers={"Range": wanted})
            with urllib.request.urlopen(request) as answer:
                assert answer.status == 206
                assert answer.read() == expected
    with pytest.raises(urllib.error.HTTPError, match="416"):
        urllib.request.urlopen(urllib.request.Request(address, headers={"Range": "bytes=20-30"}))


def test_head_of_a_large_file_tells_its_hash_and_size(hub: HubServer, api: HfApi):
    api.create_repo("tester/a")
    commit = api.upload_file(path_or_fileobj=b"abc", path_in_repo="m.safetensors", repo_id="tester/a")
    found = api.get_hf_file_metadata(url=f"{hub.endpoint}/tester/a/resolve/main/m.safetensors")
    assert found.commit_hash == commit.oid
    assert found.etag == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert found.size == 3
    assert "/cdn/" in found.location


def test_tags_and_branches_point_at_the_commit_that_was_meant(api: HfApi):
    api.create_repo("tester/a")
    first = api.upload_file(path_or_fileobj=b"1", path_in_repo="f.txt", repo_id="tester/a")
    second = api.upload_file(path_or_fileobj=b"2", path_in_repo="f.txt", repo_id="tester/a")
    api.create_tag("tester/a", tag="v1", revision=first.oid)
    api.create_tag("tester/a", tag="v2")
    api.create_branch("tester/a", branch="dev", revision="v1")
    refs = api.list_repo_refs("tester/a")
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1": first.oid, "v2": second.oid}
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": second.oid, "dev": first.oid}
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag("tester/a", tag="v1")
    api.create_tag("tester/a", tag="v1", exist_ok=True)
    api.upload_file(path_or_fileobj=b"3", path_in_repo="f.txt", repo_id="tester/a", revision="dev")
    assert api.model_info("tester/a", revision="v1").sha == first.oid
    assert api.model_info("tester/a").sha == second.oid
    api.delete_tag("tester/a", tag="v1")
    api.delete_branch("tester/a", branch="dev")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("tester/a", revision="v1")


def test_wrong_names_and_wrong_tokens_get_the_hubs_errors(hub: HubServer, api: HfApi, tmp_path: Path):
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("tester/none")
    api.create_repo("tester/p", private=True)
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("tester/p")
    api.create_repo("tester/p", exist_ok=True)
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download("tester/p", "none.txt", cache_dir=tmp_path)
    stranger = HfApi(endpoint=hub.endpoint, token=False)
    with pytest.raises(RepositoryNotFoundError):
        stranger.model_info("tester/p")
    with pytest.raises(HfHubHTTPError, match="401"):
        HfApi(endpoint=hub.endpoint, token="hf_wrong").create_repo("tester/b")
    with pytest.raises(HfHubHTTPError, match="401"):
        stranger.create_repo("tester/b")
    assert api.whoami()["name"] == "tester"
    with pytest.raises(ValueError, match="Invalid metadata"):
        api.upload_file(path_or_fileobj=b"---\na: [\n---\n", path_in_repo="README.md", repo_id="tester/p")


def test_faults_hit_the_requests_that_they_name_as_often_as_they_say(hub: HubServer, api: HfApi, tmp_path: Path):
    api.create_repo("tester/a")
    api.upload_file(path_or_fileobj=b"x" * 1000, path_in_repo="m.safetensors", repo_id="tester/a")
    address = f"{hub.endpoint}/tester/a/resolve/main/m.safetensors"
    hub.fail(status=429, times=2, path=r"/api/models/", headers={"Retry-After": "1"})
    for _ in range(2):
        with pytest.raises(HfHubHTTPError, match="429"):
            api.model_info("tester/a")
    assert api.model_info("tester/a").id == "tester/a"

    hub.fail("corrupt", path="m.safetensors", method="GET", times=2)  # the redirect (empty) and the file
    data = urllib.request.urlopen(address).read()
    assert len(data) == 1000
    assert data.count(b"x") == 999
    hub.fail("cut", path="/cdn/")
    with pytest.raises(Exception, match="IncompleteRead"):
        urllib.request.urlopen(address).read()
    hub.fail("hang", seconds=0.05)
    with pytest.raises(OSError, match=r"closed|reset|Remote end"):
        urllib.request.urlopen(address)
    assert urllib.request.urlopen(address).read() == b"x" * 1000


def test_a_cut_upload_leaves_no_commit_and_the_next_try_heals(hub: HubServer, api: HfApi):
    api.create_repo("tester/a")
    hub.fail("cut", method="PUT")
    hub.fail("cut", path="/commit/")
    with pytest.raises(Exception, match=r"disconnected|reset|closed|[Pp]ipe"):
        api.upload_file(path_or_fileobj=b"x" * 1000, path_in_repo="m.safetensors", repo_id="tester/a")
    assert hub.files("tester/a").keys() == {".gitattributes"}
    api.upload_file(path_or_fileobj=b"x" * 1000, path_in_repo="m.safetensors", repo_id="tester/a")
    assert hub.files("tester/a")["m.safetensors"] == b"x" * 1000


def test_a_server_process_can_be_killed_and_started_again_on_its_folder(tmp_path: Path):
    command = [sys.executable, str(Path(__file__).with_name("hub_server.py")), str(tmp_path)]

    def start() -> tuple[subprocess.Popen[str], HfApi]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        return process, HfApi(endpoint=process.stdout.readline().strip(), token=TOKEN)

    process, api = start()
    try:
        api.create_repo("tester/a")
        oid = api.upload_file(path_or_fileobj=b"1", path_in_repo="f.txt", repo_id="tester/a").oid
        body = b'{"kind": "status", "status": 500}'
        urllib.request.urlopen(urllib.request.Request(f"{api.endpoint}/__faults__", body, method="POST"))
        with pytest.raises(HfHubHTTPError, match="500"):
            api.model_info("tester/a")
    finally:
        process.kill()
        process.wait()
    process, api = start()
    try:
        assert api.model_info("tester/a").sha == oid
    finally:
        process.kill()
        process.wait()
