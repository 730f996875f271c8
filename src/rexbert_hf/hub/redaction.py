"""Secrets, recognised by the name they stand under and by their look, and taken out of data, texts and logs.

A secret in its place is never printed; this is for those in a wrong one: a token pasted where a path, an address or the
name of a variable belongs, which an error repeats, and which a run file would take to the Hub with its card.
"""

from __future__ import annotations

import argparse
import logging
import re
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

REDACTED = "<redacted>"

_ALWAYS_SECRET = re.compile(r"secret|passw(or)?d|passphrase|api_?key|access_?key|private_?key|credential|authorization")
# The whole of a name that nobody gives a source of texts, as "victorias_secret": what it says stands there.
_WHOLLY_SECRET = re.compile(
    r"(.*[._])?(secrets|secret_?(key|token)s?|passw(or)?ds?|passphrases?|(api|access|private)_?keys?|credentials?"
    r"|authorizations?|(client|app|api|hub|shared|consumer|signing|webhook)_?secret)|(.*\.)?secret"
)
# Names that settings and results count under.
_COUNT = re.compile(
    r"(max|min|num)_\w+|(\w+_)?(documents|texts|tokens|rows|words|characters|bytes|pairs|products|queries|steps|shards"
    r"|files|limit|size|length|seed|read|written|kept|dropped)"
)
# Names about text tokens, taken out of a key before it is asked whether it still says "token".
_TEXT_TOKENS = re.compile(
    r"tokeni[sz]\w*|tokens|token_(type|class|id|budget|count|drop|acc|loss|weight|embed)\w*"
    r"|(mask|cls|sep|pad|unk|bos|eos|special|extra|word|query|image)_token"
)
_LOOKS_SECRET = re.compile(
    r"((?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f]{2}))("
    r"hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}"  # Hugging Face
    r"|github_pat_\w{20,}|gh[pousr]_[A-Za-z0-9]{16,}|glpat-[\w-]{16,}"  # GitHub, GitLab
    # OpenAI and those who copied it; words with hyphens, as in the address of a product, have no run so long.
    r"|sk-(?=[\w-]*?[A-Za-z0-9]{16})[\w-]{20,}|sk-(proj|ant|or|svcacct|admin|lf)-(?=[\w-]*\d)[\w-]{20,}"
    r"|A(KIA|SIA)[A-Z0-9]{16}(?![A-Za-z0-9])|AIza[\w-]{30,}|xox[abeoprs]-[\w-]{10,}"  # Amazon, Google, Slack
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # a JSON web token
    r")"
)
_ENVIRONMENT = re.compile(r"[A-Z][A-Z0-9_]*_(KEY|PAT|PW|PWD)")
_FLAG = re.compile(r"(?<!\w)(--?[A-Za-z][\w.-]*)([= ])([^\s-]\S*)")
# A secret may begin with a hyphen; what such a flag is called is in the pattern, for another flag is no value.
_FLAG_HYPHEN = re.compile(
    r"(?<!\w)(--?(?=[A-Za-z])[\w.-]*(?:key|token|secret|passw|passphrase|credential)[\w.-]*)([= ])(-(?!-)\S+)", re.I
)
_ASSIGNED = re.compile(r"(?<![\w.?&-])([A-Za-z_][\w.-]*)(=)(?!=)(\"[^\"]*\"|'[^']*'|[^\s\"',;)}\]]+)")
_QUOTED = re.compile(r"((?P<name>[\"'])[A-Za-z_][\w.-]*(?P=name))(\s*:\s*)((?P<value>[\"']).*?(?P=value))")
_FLOW = re.compile(r"(?<=[{,\s])([A-Za-z_][\w.-]*)(: +)([^\s,}\"']+)(?=[^{}]{0,200}})")
_NO_SECRET = re.compile(r"none|null|true|false|<redacted>", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?[\d_,.]+(e[-+]?\d+)?", re.IGNORECASE)
_HEADER = re.compile(
    r"(authorization[\"']?\s*[:=]\s*[\"']?)((bearer|basic|digest|token)\s+[^\s\"',;]+|[^\s\"',;]{16,})", re.IGNORECASE
)
_BEARER = re.compile(r"(?<=\b[Bb]earer )(?=[\w.~+/=-]*?[A-Za-z0-9]{16})[\w.~+/=-]+")
# A password may hold a slash, and then a host with a port looks much like a user with a password.
_URL_LOGIN = re.compile(
    r"(?<=://)[^/\s:@?#]+:[^/\s?#]+(?=@)"
    r"|(?<=://)[^/\s:@?#\[\]]+:(?!\d{1,5}[/?#])[^\s@\"']{0,200}(?=@[\w\[])"
    r"|((?<=http://)|(?<=https://))[^/\s?#]+(?=@)"
)
_URL_QUERY = re.compile(r"(?<=[?&])([A-Za-z][\w.-]*)=([^&\s#\"']+)")
_QUERY_SECRET = re.compile(r"(^|[_.-])(key|sig|signature|auth)$", re.IGNORECASE)


def redact(value: Any, key: str = "") -> Any:
    """Replace secrets in nested data by a fixed mark; counts of text tokens stay.

    Args:
        value: mappings and lists of plain values.
        key: the name under which the value stood.

    Example:
        >>> redact({"hub_token": "abc", "max_tokens": 5, "tokenizer": "t", "mask_token": "[MASK]"})
        {'hub_token': '<redacted>', 'max_tokens': 5, 'tokenizer': 't', 'mask_token': '[MASK]'}
        >>> redact("HF_TOKEN=abc run --hub_token abc"), redact("Masked-token recovery")
        ('HF_TOKEN=<redacted> run --hub_token <redacted>', 'Masked-token recovery')
        >>> redact({"secrets": {"pin": 2468}, "victorias_secret": {"path": "abc", "documents": 2}})
        {'secrets': {'pin': '<redacted>'}, 'victorias_secret': {'path': '<redacted>', 'documents': 2}}
        >>> redact("http://me:word@host/v1?api_key=abc&page=2")
        'http://<redacted>@host/v1?api_key=<redacted>&page=2'
    """
    if value is None or isinstance(value, bool):
        return value
    name = _plain_name(key)
    if _ALWAYS_SECRET.search(name):
        return _without_secrets(value, name)
    if isinstance(value, Mapping):
        return _redacted_mapping(value, lambda name, item: redact(item, name))
    if isinstance(value, (list, tuple)):
        # A command line in pieces: "--hub_token" names what follows it.
        flags = [v.lstrip("-") if isinstance(v, str) and v.startswith("-") and "=" not in v else key for v in value]
        return [redact(item, flag) for item, flag in zip(value, [key, *flags], strict=False)]
    if isinstance(value, str):
        return REDACTED if _says_token(name) else _redacted_text(value)
    return value


def redact_texts(value: Any) -> Any:
    """Replace secrets in the texts of nested data, keys included, by their look alone: no name says that one is there.

    For results, where a name with "token" in it is a task's or a figure's.

    Args:
        value: mappings and lists of plain values.

    Example:
        >>> redact_texts({"masked_token": "no data", "model hf_" + "a1" * 15: ["at http://me:word@host"]})
        {'masked_token': 'no data', 'model <redacted>': ['at http://<redacted>@host']}
    """
    if isinstance(value, Mapping):
        return _redacted_mapping(value, lambda _, item: redact_texts(item))
    if isinstance(value, (list, tuple)):
        return [redact_texts(item) for item in value]
    return _redacted_text(value) if isinstance(value, str) else value


def redacted_alike(was: Any, now: Any) -> tuple[Any, Any]:
    """Two redacted configurations for a comparison: what one of them hides as a whole, both do.

    What is taken out has changed with versions, so nobody can tell whether a setting behind the mark has changed.

    Args:
        was: mappings and lists of plain values, as a run file holds them.
        now: the same of the settings of now.

    Example:
        >>> redacted_alike({"sources": {"a_secret": "<redacted>"}}, {"sources": {"a_secret": {"limit": 2}, "b": {}}})
        ({'sources': {'a_secret': '<redacted>'}}, {'sources': {'a_secret': '<redacted>', 'b': {}}})
    """
    if REDACTED in (was, now):
        return REDACTED, REDACTED
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        both = {key: redacted_alike(was[key], now[key]) for key in was if key in now}
        return (
            {key: both[key][0] if key in both else item for key, item in was.items()},
            {key: both[key][1] if key in both else item for key, item in now.items()},
        )
    if isinstance(was, (list, tuple)) and isinstance(now, (list, tuple)) and len(was) == len(now):
        pairs = [redacted_alike(one, other) for one, other in zip(was, now, strict=True)]
        return [one for one, _ in pairs], [other for _, other in pairs]
    return was, now


def looks_secret(text: str) -> bool:
    """Whether a text holds what looks like a token or key of a known service.

    Args:
        text: any.

    Example:
        >>> looks_secret("hf_" + "a1" * 15), looks_secret("HF_TOKEN")
        (True, False)
    """
    return _LOOKS_SECRET.search(text) is not None


class RedactedRecord(logging.LogRecord):
    """A log record whose message and traceback hold no secrets, whichever handler prints them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.exc_info and self.exc_info[0] is not None:  # formatters take this text where it is there
            self.exc_text = str(redact("".join(traceback.format_exception(*self.exc_info)).rstrip("\n")))

    def getMessage(self) -> str:  # noqa: N802
        """The message with its arguments."""
        return str(redact(super().getMessage()))


class RedactedParser(argparse.ArgumentParser):
    """A parser of a command line whose errors hold no secrets: they repeat what was typed."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message to stderr, then exit with status 2.

        Args:
            message: in words.
        """
        super().error(str(redact(message)))


def redact_logs() -> None:
    """Take secrets out of all that this process logs, libraries included: some have handlers of their own."""
    logging.setLogRecordFactory(RedactedRecord)


def _plain_name(key: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower().replace("-", "_")


def _says_token(name: str) -> bool:
    return "token" in _TEXT_TOKENS.sub("", name)


def _without_secrets(value: Any, name: str, wholly: bool = False) -> Any:
    """What stands under a secret name: texts go, however deep, and numbers, which may be a password.

    A source may be so called, so its figures stay: fractions, and whole numbers below it under the name of a count.
    Under a name that says secret and nothing else only what is no password stays, such as a share or an accuracy.

    Args:
        value: what stands there.
        name: under which it stands, plain.
        wholly: whether a name above it says secret and nothing else.
    """
    wholly = wholly or _WHOLLY_SECRET.fullmatch(name) is not None
    if isinstance(value, Mapping):
        return _redacted_mapping(value, lambda key, item: _without_secrets(item, _plain_name(key), wholly))
    if isinstance(value, (list, tuple)):
        return [_without_secrets(item, name, wholly) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return REDACTED if wholly and not abs(value) <= 1 else value
    counts = not wholly and isinstance(value, int) and _COUNT.fullmatch(name) and not _ALWAYS_SECRET.search(name)
    return value if counts else REDACTED


def _redacted_mapping(value: Mapping[Any, Any], each: Callable[[str, Any], Any]) -> dict[Any, Any]:
    """Keys too: a token in a wrong place may have become one. Those that would fall together are numbered."""
    found: dict[Any, Any] = {}
    for key, item in value.items():
        clean = _redacted_text(key) if isinstance(key, str) else key
        name, number = clean, 1
        while clean != key and (name in found or name in value):
            number += 1
            name = f"{clean} {number}"
        found[name] = each(str(key), item)
    return found


def _redacted_text(text: str) -> str:
    text = _HEADER.sub(lambda m: f"{m[1]}{REDACTED}", text)
    text = _FLAG.sub(lambda m: f"{m[1]}{m[2]}{redact(m[3], m[1].lstrip('-'))}", text)
    text = _FLAG_HYPHEN.sub(_redacted_pair, text)
    text = _URL_QUERY.sub(_redacted_query, text)
    text = _ASSIGNED.sub(_redacted_pair, text)
    text = _QUOTED.sub(lambda m: _redacted_value(m, m[1], m[3], m[4]), text)
    text = _FLOW.sub(_redacted_pair, text)
    return _BEARER.sub(REDACTED, _URL_LOGIN.sub(REDACTED, _LOOKS_SECRET.sub(REDACTED, text)))


def _redacted_pair(match: re.Match[str]) -> str:
    return _redacted_value(match, match[1], match[2], match[3])


def _redacted_value(match: re.Match[str], name: str, between: str, value: str) -> str:
    """A name and its value in a text; numbers under "token" are counts."""
    plain, bare = _plain_name(name.strip("\"'").lstrip("-")), value.strip("\"'")
    variable = between == "=" and _ENVIRONMENT.fullmatch(name)
    token = _says_token(plain) and not _NUMBER.fullmatch(bare)
    if not (variable or token or _ALWAYS_SECRET.search(plain)) or not bare or _NO_SECRET.fullmatch(bare):
        return match[0]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{name}{between}{quote}{REDACTED}{quote}"


def _redacted_query(match: re.Match[str]) -> str:
    secret = _QUERY_SECRET.search(match[1]) is not None
    return f"{match[1]}={REDACTED if secret else redact(match[2], match[1])}"
