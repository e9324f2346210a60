"""An artefact is a folder that we wrote, and its seal says what it is: kind, inputs, and every file with its checksum.

The seal is the file ``artefact.json``. It is written last, so it is there if and only if the artefact is whole. Its ``id``
is a digest of the rest of it: two artefacts of the same content and inputs have the same id, whenever and wherever they
were made. ``run.json``, which tells of times and machines, has no part in the id; it names the id, and carries a digest
of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from conceptatlas.base.checksums import checksums, remember
from conceptatlas.base.errors import InputError, WorkError
from conceptatlas.base.files import json_text, sha256_of, write_text
from conceptatlas.base.kinds import RECORDING, Kind
from conceptatlas.base.provenance import RUN_FILE

SEAL_FILE = "artefact.json"
_ID, _OF_ARTEFACT, _CHECK = "id", "artefact", "check"


class FileSeal(NamedTuple):
    """What the seal says of one file: its size in bytes, and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Artefact:
    """A sealed folder.

    Attributes:
        kind: What it is.
        folder: Where it is.
        id: A digest of its content and inputs, ``sha256:…``.
        inputs: What it was made from: name → id.
        files: Every file but ``run.json``, by its path in the folder.
        beside: ``run.json``, where there is one.
    """

    kind: Kind
    folder: Path
    id: str
    inputs: dict[str, str]
    files: dict[str, FileSeal]
    beside: tuple[str, ...] = ()
    _verified: set[str] = field(default_factory=set, compare=False, repr=False)

    def __contains__(self, name: str) -> bool:
        return name in self.files or name in self.beside

    def file(self, name: str) -> Path:
        """Return the path of a file, verified. A name that the seal does not hold is the caller's mistake (KeyError)."""
        self.verify([name])
        return self.folder / name

    def json(self, name: str) -> Any:
        """Return what a verified JSON file holds."""
        return json.loads(self.file(name).read_bytes())

    def verify(self, names: Iterable[str] | None = None) -> None:
        """Check files (all of them where None) against the seal, each once; a checksum is taken where none is remembered.

        Raises:
            WorkError: A file is missing, or is not what was written.
        """
        wanted = [*self.files, *self.beside] if names is None else list(names)
        wanted = [name for name in wanted if name not in self._verified]
        if not wanted:
            return
        sealed = [name for name in wanted if name in self.files]
        try:
            for name in sealed:
                if (size := (self.folder / name).stat().st_size) != self.files[name].size:
                    raise self._damaged(name, f"it has {size} bytes, and {self.files[name].size} were written")
            found = checksums([self.folder / name for name in sealed])
        except OSError as error:
            name = os.path.relpath(str(error.filename), self.folder)
            raise self._damaged(name, error.strerror or str(error)) from error
        for name, sha256 in zip(sealed, found, strict=True):
            if sha256 != self.files[name].sha256:
                raise self._damaged(name, "its checksum differs from what was written")
        for name in wanted:
            if name not in self.files:
                self._verify_beside(name)
        self._verified.update(wanted)

    def _verify_beside(self, name: str) -> None:
        if name not in self.beside:
            raise KeyError(name)
        try:
            said = read_signed(self.folder / name, _CHECK)
        except (OSError, ValueError) as error:
            raise self._damaged(name, str(error)) from error
        if said.get(_OF_ARTEFACT) != self.id:
            raise self._damaged(name, "it belongs to another artefact")

    def _damaged(self, name: str, why: str) -> WorkError:
        return WorkError(f"{self.folder / name} is damaged ({why}); {self.kind.again(self.folder)}.")


def signed(value: Mapping[str, Any], key: str) -> str:
    """Return ``value`` as JSON, with the digest of that JSON as its last entry ``key``."""
    text = json_text(value)
    return json_text({**value, key: f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"})


def read_signed(path: Path, key: str) -> dict[str, Any]:
    """Return what ``signed`` wrote, without the digest.

    Raises:
        ValueError: It is not, byte for byte, what was written.
        OSError: It cannot be read.
    """
    text = path.read_bytes().decode()
    found = json.loads(text)
    if not isinstance(found, dict) or key not in found:
        raise ValueError(f"it has no {key!r}")
    value = {name: each for name, each in found.items() if name != key}
    if signed(value, key) != text:
        raise ValueError("its checksum differs from what was written")
    return value


def read_seal(kind: Kind, folder: Path) -> Artefact:
    """Read the seal of the artefact in ``folder``; no other file is looked at yet (see ``Artefact.verify``).

    Raises:
        InputError: There is none, it was not finished, it is of another kind, or a later conceptatlas wrote it.
        WorkError: The seal is damaged.
    """
    path = folder / SEAL_FILE
    if not path.is_file():
        raise InputError(_why_missing(kind, folder))
    try:
        said = json.loads(path.read_bytes())
        found, version = said["format"], int(said["version"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WorkError(f"{path} is damaged ({error}); {kind.again(folder)}.") from error
    if found != kind.format:
        raise InputError(f"{folder} holds {found}, and {kind.format} is needed; check the path.")
    if version > kind.version:
        raise InputError(
            f"{folder} holds {found} of version {version}, and this conceptatlas reads up to {kind.version}; update "
            "conceptatlas."
        )
    try:
        said = read_signed(path, _ID)
        files = {name: FileSeal(int(each["size"]), str(each["sha256"])) for name, each in said["files"].items()}
        sealed = json.loads(path.read_bytes())[_ID]
        return Artefact(kind, folder, sealed, dict(said["inputs"]), files, tuple(said["beside"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WorkError(f"{path} is damaged ({error}); {kind.again(folder)}.") from error


def _why_missing(kind: Kind, folder: Path) -> str:
    again = kind.again(folder)
    if (folder / kind.staging).exists():
        return f"The {kind.title} in {folder} was not finished; {again}."
    if (folder / kind.marker).exists():
        return f"The {kind.title} in {folder} has no {SEAL_FILE}: an earlier conceptatlas made it; {again}."
    return f"There is no {kind.title} in {folder} (no {SEAL_FILE}); check the path, or {again.removesuffix(' again')}."


def open_sealed(kind: Kind, folder: Path) -> Artefact:
    """Open the artefact in ``folder``, every file of it verified.

    Raises:
        InputError: There is none, it was not finished, it is of another kind, or a later conceptatlas wrote it.
        WorkError: A file of it is damaged.
    """
    found = read_seal(kind, folder)
    found.verify()
    return found


def make_seal(kind: Kind, folder: Path, inputs: Mapping[str, str], files: Mapping[str, FileSeal]) -> Artefact:
    """Write the seal of ``files``, which stand in ``folder``, and put its id into ``run.json``, where there is one."""
    files = dict(sorted(files.items()))
    run = folder / RUN_FILE
    beside = (RUN_FILE,) if run.is_file() else ()
    value: dict[str, Any] = {
        "format": kind.format,
        "version": kind.version,
        "inputs": dict(sorted(inputs.items())),
        "files": {name: each._asdict() for name, each in files.items()},
        "beside": list(beside),
    }
    text = signed(value, _ID)
    sealed = json.loads(text)[_ID]
    if beside:
        said = {key: each for key, each in json.loads(run.read_bytes()).items() if key not in (_OF_ARTEFACT, _CHECK)}
        write_text(run, signed(said | {_OF_ARTEFACT: sealed}, _CHECK))
    write_text(folder / SEAL_FILE, text)
    return Artefact(kind, folder, sealed, dict(value["inputs"]), files, beside, {*files, *beside})


def identity(path: Path) -> str:
    """Return what stands for the content of an input: an artefact's id, or ``sha256:…`` of a file.

    A recording from before seals is known by its manifest, which holds the checksums of all its files.

    Raises:
        InputError: It is a folder that is no artefact, or nothing is there.
    """
    if path.is_dir() and (path / SEAL_FILE).is_file():
        try:
            return str(json.loads((path / SEAL_FILE).read_bytes())[_ID])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path / SEAL_FILE} is damaged ({error}); make {path} again.") from error
    file = path / RECORDING.marker if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{path} is neither a file nor an artefact of ours; check the path.")
    return f"sha256:{checksums([file])[0]}"


def seal_of(path: Path) -> FileSeal:
    """Return the size and the checksum of a file, read anew."""
    return FileSeal(path.stat().st_size, sha256_of(path))


def remember_sealed(artefact: Artefact, since_ns: int = 0) -> None:
    """Remember the checksums of what was just written (files changed at ``since_ns`` or later), to read nothing twice."""
    paths = {artefact.folder / name: each.sha256 for name, each in artefact.files.items()}
    remember({path: sha256 for path, sha256 in paths.items() if path.stat().st_mtime_ns >= since_ns})
