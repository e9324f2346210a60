"""For notebooks: a feature's card, and the explorer beside the notebook."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from conceptatlas.base.errors import InputError, WorkError
from conceptatlas.evidence import FeatureRef, safe_link
from conceptatlas.views.html import content_hash, render, style_text
from conceptatlas.views.sections import panels_of
from conceptatlas.views.study_folder import Study

if TYPE_CHECKING:
    from conceptatlas.ranking import Ranking


def _folder(source: Ranking | str | os.PathLike[str]) -> Path:
    path = Path(source) if isinstance(source, (str, os.PathLike)) else source.path
    if path is None:
        raise InputError("This ranking is in memory only; save it first: ranking.save('rank').")
    return path


@dataclass(frozen=True)
class Card:
    """Everything known of one feature, as a notebook shows it.

    Attributes:
        feature: The feature.
        html: The card as one HTML document that loads and runs nothing.
    """

    feature: FeatureRef
    html: str = field(repr=False)

    def _repr_html_(self) -> str:
        # A frame of its own: the notebook's style and ours do not meet, and nothing in it can run.
        return (
            f'<iframe sandbox="" srcdoc="{escape(self.html)}" title="{escape(self.feature.label)}" '
            'width="100%" height="720" frameborder="0"></iframe>'
        )


def card(source: Ranking | str | os.PathLike[str], rank: int = 1) -> Card:
    """Return the card of a ranked feature.

    Args:
        source: A saved ranking, its folder, or a study's.
        rank: Its rank, from 1.

    Raises:
        InputError: The ranking is in memory only, its recording is not found, or there is no such rank.
    """
    study = Study.open(_folder(source))
    if study.recording is None:
        raise InputError(f"The recording of the ranking in {study.path} is not found; keep it where it was ranked.")
    feature = next((feature for feature in study.features if feature.rank == rank), None)
    if feature is None:
        raise InputError(
            f"There is no rank {rank} among the {len(study.features)} features shown; rank with a larger top_n."
        )
    style = style_text()
    html = render(
        "card.html",
        policy=f"default-src 'none'; style-src {content_hash(style)}; img-src data:",
        style=Markup(style),
        feature=feature,
        row=study.figures(feature),
        link=safe_link(feature.neuronpedia_url),
        panels=panels_of(study, feature),
    )
    return Card(feature, str(html))


class Explorer:
    """The explorer, served from this process until ``stop`` (or the end of the process).

    Attributes:
        url: Where it is.
    """

    def __init__(self, url: str, server: Any, thread: threading.Thread) -> None:
        self.url = url
        self._server = server
        self._thread = thread

    def stop(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(timeout=10)

    def __repr__(self) -> str:
        return f"Explorer({self.url!r})"

    def _repr_html_(self) -> str:
        return f'<p>The explorer is at <a href="{escape(self.url)}" target="_blank" rel="noopener">{escape(self.url)}</a>.</p>'


def explore(source: Ranking | str | os.PathLike[str], *, port: int = 0) -> Explorer:
    """Serve the explorer beside a notebook, on this machine only.

    Args:
        source: A saved ranking, or the folder of a study, a recording, a ranking, or of several of these.
        port: The port; 0 takes a free one.

    Raises:
        InputError: There is nothing to show there, or the port is taken.
        WorkError: The server did not start.
    """
    import uvicorn

    from conceptatlas.views.explorer import Library, NetworkPolicy, create_app
    from conceptatlas.views.explorer.server import free_port

    library = Library.open(_folder(source))
    policy = NetworkPolicy.local(free_port("127.0.0.1", port))
    config = uvicorn.Config(create_app(library, policy), host=policy.address, port=policy.port, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True, name="explorer")
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise WorkError(f"The explorer did not start at {policy.url}; give another port.")
        time.sleep(0.01)
    return Explorer(policy.url, server, thread)
