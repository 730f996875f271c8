"""The manifest of a tokenised folder: what makes it whole, how its shards are checked, and what `datasets` reads of it.

The folder is one that `datasets.load_from_disk` opens, too, hence its `state.json` and `dataset_info.json`.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rexbert_hf.hub.manifest_names import stays_inside
from rexbert_hf.hub.run_file import checksum, write_whole

MANIFEST = "tokenised.json"
"""The file that makes a folder a finished tokenised data set; it is written last."""
VERIFIED_BYTES = 256 << 20
"""Larger sets are checked by the sizes of their files only, unless asked otherwise: reading them takes its time."""
FORMAT_VERSION = 1
SHARDS = "data-[0-9][0-9][0-9][0-9][0-9].arrow"
"""Names of shards; `datasets` has others, with "of" in them."""
_OWN_SUM = "manifest_crc32"
"""Key of the manifest's own checksum."""


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a folder, whole and with the fields that loading needs.

    Args:
        directory: the folder.

    Raises:
        FileNotFoundError: if it has none.
        ValueError: if the manifest is damaged, of a later format, or names files outside the folder.
    """
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest.pop(_OWN_SUM, None) not in (None, _sum_of(manifest)):  # earlier versions wrote none
            raise ValueError("its contents changed since they were written")
        counts = (manifest["num_rows"], manifest["num_prefix"], manifest["num_suffix"])
        entries = [(entry["bytes"], entry["crc32"]) for entry in manifest.get("files", {}).values()]
        if not all(isinstance(number, int) for numbers in (counts, *entries) for number in numbers):
            raise TypeError("a count is no number")
        if not isinstance(manifest["shards"], list) or not manifest["shards"]:
            raise TypeError("no names of shards")
        if outside := [name for name in (*manifest["shards"], *manifest.get("files", {})) if not stays_inside(name)]:
            raise ValueError(f"it names {outside[0]!r:.200}, which is no file of the folder")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{directory} has no {MANIFEST}: it is not a finished tokenised data set; run tokenise again"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        told = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is damaged ({told}): tokenise again") from None
    if (found := manifest.get("format_version")) != FORMAT_VERSION:
        raise ValueError(f"{path}: format {found}, this version reads {FORMAT_VERSION}: tokenise again")
    return dict(manifest)


def _sum_of(manifest: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())


def check_files(directory: Path, files: dict[str, dict[str, int]], verify: bool | None) -> None:
    """Compare shards with what the manifest says of them; manifests of earlier versions say nothing.

    Args:
        directory: the folder.
        files: size in bytes and crc32 of each shard.
        verify: compare the checksums too; None does so up to `VERIFIED_BYTES`.

    Raises:
        FileNotFoundError: if a shard is missing.
        ValueError: if one is damaged.
    """
    if verify is None:
        verify = sum(entry["bytes"] for entry in files.values()) <= VERIFIED_BYTES
    for name, entry in files.items():
        path = directory / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing, but the manifest names it: tokenise again")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise ValueError(f"{path} is damaged ({size} bytes, {entry['bytes']} were written): tokenise again")
        if verify and checksum(path) != entry["crc32"]:
            raise ValueError(f"{path} is damaged (its contents changed since they were written): tokenise again")


def refuse_foreign(directory: Path) -> None:
    """Keep off a folder with something else that `datasets` saved: two of its files have the names of two of ours.

    Args:
        directory: where a tokenised data set is to be written; it may be missing.

    Raises:
        FileExistsError: with the file that is not ours.
    """
    for name, is_ours in (("state.json", _names_shards), ("dataset_info.json", _is_empty)):
        try:
            content = json.loads((directory / name).read_bytes())
        except FileNotFoundError:
            continue
        except ValueError:  # damaged
            content = None
        if not is_ours(content) and not (content is None and (directory / MANIFEST).exists()):
            raise FileExistsError(f"{directory / name} is of another data set: choose another folder, or remove it")


def _names_shards(state: Any) -> bool:
    files = state.get("_data_files") if isinstance(state, dict) else None
    return isinstance(files, list) and all(isinstance(file, dict) and _is_shard(file.get("filename")) for file in files)


def _is_shard(name: Any) -> bool:
    return isinstance(name, str) and fnmatchcase(name, SHARDS)


def _is_empty(info: Any) -> bool:
    return bool(info == {})


def write_manifest(directory: Path, shards: list[str], **fields: Any) -> None:
    """Write the manifest, which makes the folder loadable (by `datasets.load_from_disk` too).

    Args:
        directory: the folder, with its shards.
        shards: names of them, in order.
        **fields: further fields.
    """
    paths = {name: directory / name for name in shards}
    sums = {name: {"bytes": path.stat().st_size, "crc32": checksum(path)} for name, path in paths.items()}
    # `datasets` finds the results of `map` again by the fingerprint, so it changes with the contents.
    content = hashlib.sha256(json.dumps(list(sums.values())).encode()).hexdigest()[:16]
    files = [{"filename": name} for name in shards]
    state: dict[str, Any] = {"_data_files": files, "_fingerprint": content}
    state |= {"_format_columns": None, "_format_kwargs": {}, "_format_type": None, "_output_all_columns": False}
    write_whole(directory / "state.json", json.dumps({**state, "_split": None}).encode())
    write_whole(directory / "dataset_info.json", b"{}")
    manifest = {"format_version": FORMAT_VERSION, "shards": shards, "files": sums, **fields}
    manifest[_OWN_SUM] = _sum_of(json.loads(json.dumps(manifest)))
    write_whole(directory / MANIFEST, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
