"""What was asked for does not exist: a page answers 404, where other bad input is 400."""

from __future__ import annotations

from conceptatlas.base.errors import InputError


class Missing(InputError):
    """There is no such study, feature, sentence or job."""
