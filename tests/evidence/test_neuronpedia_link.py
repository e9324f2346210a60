"""What is shown as a link, and what is not."""

from __future__ import annotations

import pytest

from conceptatlas.evidence.neuronpedia import safe_link


def test_a_page_of_neuronpedia_is_a_link() -> None:
    url = "https://www.neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/313"
    assert safe_link(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        None,
        "javascript:alert(1)",
        "http://www.neuronpedia.org/x",
        "https://www.neuronpedia.org.evil.example/x",
        "https://user@www.neuronpedia.org/x",
        "https://www.neuronpedia.org:8443/x",
        "https://www.neuronpedia.org:x/y",
        "//www.neuronpedia.org/x",
        "data:text/html,<script>",
    ],
)
def test_anything_else_is_none(url: str | None) -> None:
    assert safe_link(url) is None
