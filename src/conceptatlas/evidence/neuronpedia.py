"""Links to Neuronpedia: given where the ranking has one, checked before they are shown as links, never guessed."""

from __future__ import annotations

from urllib.parse import urlsplit

HOSTS = frozenset({"neuronpedia.org", "www.neuronpedia.org"})


def safe_link(url: str | None) -> str | None:
    """Return ``url`` if it is an https page on Neuronpedia, else None.

    A ranking is a file that somebody may have sent: an address from it becomes a link only when it can do no harm.
    """
    if not url:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme != "https" or parts.hostname not in HOSTS or port is not None or parts.username is not None:
        return None
    return url
