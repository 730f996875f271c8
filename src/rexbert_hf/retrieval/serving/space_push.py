"""The search page as a Space on the Hub: `recipes/space`, its settings, and the package's own source in one commit.

The source travels because a Space is built from `requirements.txt` alone and this package is on no registry: `app.py`
finds it beside itself.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

import rexbert_hf.hub
from rexbert_hf.hub.left_over import temporary_folder
from rexbert_hf.hub.push_files import push_files
from rexbert_hf.retrieval.serving.index_card import was_folder
from rexbert_hf.retrieval.serving.index_folder import INDEX_FILE
from rexbert_hf.retrieval.serving.page_settings import PageSettings

logger = logging.getLogger(__name__)

SETTINGS_FILE = "space.yaml"
"""Of the Space: the settings that `app.py` reads there."""

_STALE = ("app.py", "requirements.txt", SETTINGS_FILE, "rexbert_hf/**")
_LINKS = {"index": "datasets", "model": "models", "masked_lm": "models"}


def push_space(settings: PageSettings, folder: Path, **options: Any) -> str:
    """Push the page with its settings; see `push_files` for the options.

    Args:
        settings: with `push_to_hub`; index and models must be on the Hub already.
        folder: `recipes/space`.
        options: `token`, `endpoint`, `revision`, `commit_message`.

    Returns:
        The Space's address.

    Raises:
        ValueError: if index or model is a folder of this machine, or the index names a model that was one.
    """
    if settings.push_to_hub is None:
        raise ValueError("push_to_hub is empty: name the Space, as user/name")
    for key in _LINKS:
        value = getattr(settings, key)
        if value is not None and Path(value).exists():
            raise ValueError(f"{key} {value} is a folder of this machine: push it, and give its name on the Hub")
    if settings.index is not None and settings.model is None:
        _check_model(settings.index, options.get("endpoint"), options.get("token"))
    chosen = {key: getattr(settings, key) for key in (*_LINKS, "sample_size", "hits", "title")}
    with temporary_folder() as place:
        written = Path(place) / SETTINGS_FILE
        kept = {key: value for key, value in chosen.items() if value is not None}
        written.write_text(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True), encoding="utf-8")
        files = {"app.py": folder / "app.py", "requirements.txt": folder / "requirements.txt", SETTINGS_FILE: written}
        files |= package_files()
        options.setdefault("commit_message", f"Push {settings.title}")
        return push_files(
            files,
            settings.push_to_hub,
            card=space_card((folder / "README.md").read_text(encoding="utf-8"), settings),
            repo_type="space",
            space_sdk="gradio",
            stale=_STALE,
            private=settings.private,
            **options,
        )


def _check_model(index: str, endpoint: str | None, token: str | None) -> None:
    """Refuse an index whose model the Space could not find; one that cannot be read now is left to the Space."""
    with temporary_folder() as place:
        try:
            path = HfApi(endpoint=endpoint, token=token).hf_hub_download(
                index, INDEX_FILE, repo_type="dataset", cache_dir=place
            )
            model = json.loads(Path(path).read_text(encoding="utf-8")).get("model")
        except (OSError, ValueError, AttributeError, HfHubHTTPError) as error:
            logger.warning("index %s: its model is not known here (%s)", index, type(error).__name__)
            return
    if isinstance(model, dict) and was_folder(model):
        raise ValueError(
            f"index {index} names its model as '{model.get('name')}', a folder of the machine that built it: push the"
            " model, and give its name on the Hub with --model"
        )


def package_files() -> dict[str, Path]:
    """All source files of this package: path in the Space -> file here."""
    root = Path(rexbert_hf.hub.__file__).parents[1]
    found = sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {f"{root.name}/{path.relative_to(root).as_posix()}": path for path in found}


def space_card(template: str, settings: PageSettings) -> str:
    r"""The Space's README with its title, and with links to what it shows.

    Args:
        template: `recipes/space/README.md`.
        settings: of the page.

    Example:
        >>> print(space_card("---\ntitle: x\nsdk: gradio\n---\nText.", PageSettings(index="me/shop", title="Shop")))
        ---
        title: Shop
        sdk: gradio
        datasets:
        - me/shop
        ---
        Text.
    """
    metadata, body = rexbert_hf.hub.split_card(template)
    metadata["title"] = settings.title
    for key, kind in _LINKS.items():
        value = getattr(settings, key)
        if value is not None and value.count("/") == 1:
            metadata[kind] = sorted({*metadata.get(kind, ()), value})
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---\n{body}"
