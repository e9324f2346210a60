"""Run the explorer."""

from __future__ import annotations

import os
import socket

from conceptatlas.base.console import note, say
from conceptatlas.base.errors import InputError
from conceptatlas.views.explorer.app import create_app
from conceptatlas.views.explorer.library import Library
from conceptatlas.views.explorer.policy import NetworkPolicy


def free_port(address: str, port: int) -> int:
    """Return ``port`` if it can be listened on; with 0, one that can.

    Raises:
        InputError: It is taken or not allowed.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"Cannot listen on {address}:{port} ({error}); give another --port, or 0 for any free one."
            ) from error
        return int(probe.getsockname()[1])


def serve(folder: str | os.PathLike[str], *, port: int = 8765, unsafe_listen: str | None = None) -> None:
    """Serve the explorer of a folder until interrupted.

    Args:
        folder: A study, a recording, a ranking, a label run, or a folder of these.
        port: The port; 0 takes a free one.
        unsafe_listen: Another address than 127.0.0.1 to listen on; the printed URL then carries a secret.

    Raises:
        InputError: The folder holds nothing to show, or the port is taken.
    """
    import uvicorn

    library = Library.open(folder)
    address = unsafe_listen or "127.0.0.1"
    port = free_port(address, port)
    policy = NetworkPolicy.local(port) if unsafe_listen is None else NetworkPolicy.unsafe(address, port)
    say(policy.url)
    note("Press Ctrl-C to stop.")
    uvicorn.run(create_app(library, policy), host=address, port=port, log_level="warning", server_header=False)
