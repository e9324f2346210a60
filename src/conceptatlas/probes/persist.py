"""Models on disk: skops files, of equal bytes for equal models, loaded only when they hold nothing but known types."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from conceptatlas.base.errors import InputError
from conceptatlas.base.files import write_bytes

# Beyond what skops itself trusts: the compiled trees of scikit-learn's forests, which hold arrays only.
TRUSTED = ("sklearn.tree._tree.Tree",)

_SCHEMA = "schema.json"


def dump_model(model: Any) -> bytes:
    """Return ``model`` as the bytes of a skops file; equal models give equal bytes.

    skops names the arrays in the zip after memory addresses and stamps them with the time; here they are numbered in
    the order in which the schema mentions them, and the time is fixed.
    """
    from skops.io import dumps

    with zipfile.ZipFile(io.BytesIO(dumps(model))) as archive:
        schema = archive.read(_SCHEMA).decode()
        numbers: dict[str, str] = {}
        for address in re.findall(r'"__id__": (\d+)', schema) + re.findall(r'"(\d+)\.[a-z]+"', schema):
            numbers.setdefault(address, str(len(numbers)))
        schema = re.sub(r'("__id__": )(\d+)', lambda m: m[1] + numbers[m[2]], schema)
        schema = re.sub(r'"(\d+)(\.[a-z]+)"', lambda m: f'"{numbers[m[1]]}{m[2]}"', schema)
        members = []
        for name in archive.namelist():
            if name != _SCHEMA:
                stem, _, suffix = name.partition(".")
                members.append((int(numbers[stem]), suffix, archive.read(name)))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, suffix, data in sorted(members):
            archive.writestr(zipfile.ZipInfo(f"{number}.{suffix}"), data, zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo(_SCHEMA), schema, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def save_model(path: Path, model: Any) -> None:
    """Write ``model`` to ``path``, whole or not at all."""
    write_bytes(path, dump_model(model))


def load_model(path: Path) -> Any:
    """Load a model.

    Raises:
        InputError: There is no file, it is no skops file, or it holds types that are not trusted (they are named; none
            of their code is run).
    """
    from skops.io import get_untrusted_types, loads
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"There is no model {path}; check the path, or train the probe again.") from error
    try:
        untrusted = sorted(set(get_untrusted_types(data=data)) - set(TRUSTED))
        if untrusted:
            raise InputError(
                f"{path} holds types that are not trusted: {', '.join(untrusted)}; it was not loaded. Use a model that "
                "`conceptatlas probe train` wrote."
            )
        return loads(data, trusted=list(TRUSTED))
    except (zipfile.BadZipFile, KeyError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a skops file, or it is damaged; train the probe again.") from error
    except UntrustedTypesFoundException as error:
        raise InputError(f"{path} holds types that are not trusted; it was not loaded ({error}).") from error
