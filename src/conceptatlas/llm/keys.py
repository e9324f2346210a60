"""Keys: found in the environment or ``.env``, used for the request, and shown nowhere."""

from __future__ import annotations

import os
from urllib.parse import urlsplit, urlunsplit

from conceptatlas.base.errors import InputError

KEY_VARIABLE = "OPENAI_API_KEY"
URL_VARIABLE = "OPENAI_BASE_URL"
_SHORTEST = 8  # "none" or "EMPTY", which local servers are given, are no secrets, and may stand in any text


class Secret:
    """A value that prints as ``***``; ``reveal`` is the only way to it."""

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself."""
        return self._value

    def hide_in(self, text: str) -> str:
        """Return ``text`` with every occurrence of the value replaced by ``***``."""
        return text.replace(self._value, "***") if len(self._value) >= _SHORTEST else text

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")


def setting(name: str) -> str | None:
    """Return a setting from the environment, else from the nearest ``.env`` upwards, stripped; None where unset."""
    from dotenv import dotenv_values, find_dotenv

    value = os.environ.get(name) or dotenv_values(find_dotenv(usecwd=True)).get(name)
    return value.strip() or None if value else None


def find_key(*, needed: bool) -> Secret:
    """Return the API key.

    Args:
        needed: Whether the endpoint is sure to want one; a local server is content with a placeholder.

    Raises:
        InputError: It is needed and not set, or holds characters that no key has.
    """
    value = setting(KEY_VARIABLE)
    if value is None:
        if needed:
            raise InputError(
                f"No key for the language model: set {KEY_VARIABLE} in the environment or in .env, or name an endpoint "
                "that needs none with --llm-base-url."
            )
        return Secret("none")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise InputError(f"{KEY_VARIABLE} holds a space or a character that no key has; copy the key again.")
    return Secret(value)


def without_credentials(url: str) -> str:
    """Return ``url`` without user, password, query and fragment, so that it can be shown and stored."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    netloc = f"{host}:{parts.port}" if parts.port else host
    return urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))


def check_url(url: str) -> str:
    """Return ``url`` if it is an http(s) address.

    Raises:
        InputError: It is not.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InputError(f"{url!r} is not an address ({error}); write http://localhost:8000/v1, say.") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InputError(
            f"{without_credentials(url)!r} is not an http(s) address; write http://localhost:8000/v1, say."
        )
    return url
