"""The one place that decides what an output may replace, and the one way to write an artefact."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from conceptatlas.base.artefact import (
    SEAL_FILE,
    Artefact,
    identity,
    make_seal,
    remember_sealed,
    seal_of,
)
from conceptatlas.base.errors import InputError, WorkError
from conceptatlas.base.files import TEMP_PREFIX, ensure_folder, sync_folder, write_json
from conceptatlas.base.kinds import Kind
from conceptatlas.base.lock import folder_lock
from conceptatlas.base.provenance import RUN_FILE

# In the staging folder: the files of the folder that are ours, those of a run that was killed among them.
_OWNED = ".owned.json"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_SYNCING = 16


@contextmanager
def writing(
    kind: Kind, folder: str | os.PathLike[str], inputs: Mapping[str, Path | str] | None = None
) -> Iterator[Path]:
    """Write an artefact: the block writes its files into the folder it is given, and at its end they come to their place.

    A block that fails leaves what was there before. One that is killed leaves that, too, or, while files come to their
    place, an artefact without a seal, which opening refuses.

    Args:
        kind: What is written.
        folder: Where.
        inputs: What it is made from: paths of artefacts and files, which are never overwritten, or ids.

    Raises:
        InputError: The folder may not be replaced (see ``may_replace_folder``), or another process is writing into it.
        WorkError: The disk is full, or cannot be written.
    """
    target = Path(folder)
    given = inputs or {}
    may_replace_folder(kind, target, [path for path in given.values() if isinstance(path, Path)])
    ids = {name: identity(each) if isinstance(each, Path) else each for name, each in given.items()}
    made = [path for path in (target, *target.parents) if not path.exists()]
    try:
        with folder_lock(ensure_folder(target)), _disk_errors(target):
            may_replace_folder(kind, target)  # another process may have been faster
            staging, owned = _begin(kind, target)
            try:
                yield staging
                _commit(kind, target, staging, ids, owned)
            finally:
                _end(target, staging, owned)
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.rmdir()
        raise


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        ours = error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(target)
        if error.errno not in _DISK_FULL and not ours:
            raise
        raise WorkError(
            f"Cannot write {target}: {error.strerror}; free some space or choose another folder."
        ) from error


def may_replace_folder(kind: Kind, target: Path, inputs: Iterable[Path] = ()) -> None:
    """Check that an artefact may be written into ``target``: it is not there, is empty, or holds one of the same kind.

    Raises:
        InputError: It may not; the message says why, and what to do.
    """
    if target == Path():
        raise InputError(
            "The output is the current folder (an empty path, or '.'); name another, or give this one's full path."
        )
    if target.exists() and not target.is_dir():
        what = "a file" if target.is_file() else "no folder"
        raise InputError(f"{target} is {what}, and a folder is needed; choose another name.")
    _check_no_input(target, inputs)
    if (owner := _owner(target)) is not None:
        raise InputError(f"{target} is a part of {owner}; choose another folder.")
    if not target.is_dir():
        return
    found = _format_in(target)
    if found not in (None, kind.format):
        raise InputError(f"{target} holds {found}, which {kind.format} may not replace; choose another folder.")
    known = found is not None or (target / kind.marker).is_file() or (target / kind.staging).exists()
    others = [path.name for path in sorted(target.iterdir()) if not path.name.startswith(".")]
    others = [name for name in others if not any(fnmatch(name, pattern) for pattern in kind.beside)]
    if others and not known:
        shown = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        raise InputError(f"{target} holds other files ({shown}) and no {kind.title}; choose a new or empty folder.")


def may_replace(
    file: str | os.PathLike[str], suffixes: Collection[str] = (), inputs: Iterable[Path | str | None] = ()
) -> Path:
    """Check that a file may be written, make the folders above it, and return its path.

    Args:
        file: The file.
        suffixes: What a file that is there already must end with, to be replaced; empty for anything.
        inputs: What it is made from, which is never replaced.

    Raises:
        InputError: It may not be written; the message says why, and what to do.
    """
    path = Path(file)
    if path.is_dir():
        raise InputError(f"{path} is a folder, and a file is to be written; give the file's name.")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a device or another special file, which is never replaced; choose another name.")
    _check_no_input(path, [Path(each) for each in inputs if each])
    if (owner := _owner(path)) is not None:
        raise InputError(f"{path} is a part of {owner}; choose another name.")
    if path.exists() and suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"{path} is there already, and is no {' or '.join(suffixes)} file; choose another name.")
    ensure_folder(path.parent)
    return path


def _check_no_input(path: Path, inputs: Iterable[Path]) -> None:
    for each in inputs:
        if path.exists() and each.exists() and path.samefile(each):
            raise InputError(f"{path} is an input of this command, and would be overwritten; choose another name.")


def _format_in(folder: Path) -> str | None:
    """Return the format that the seal of a folder names; None where it has none that can be read."""
    try:
        return str(json.loads((folder / SEAL_FILE).read_bytes())["format"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _owner(path: Path) -> str | None:
    """Return the artefact above a path to which it belongs, in words; None where there is none."""
    place = path.resolve()
    for folder in place.parents:
        names = _names_in(folder / SEAL_FILE)
        below = place.relative_to(folder)
        if below.as_posix() in names or below.parts[0] in {name.split("/")[0] for name in names if "/" in name}:
            return f"the artefact in {folder} ({_format_in(folder)})"
    return None


def _names_in(seal: Path) -> set[str]:
    """Return the names of the files that a seal holds, its own too; none where it cannot be read."""
    try:
        said = json.loads(seal.read_bytes())
        return {SEAL_FILE, *said["files"], *said["beside"]}
    except (OSError, ValueError, TypeError, KeyError):
        return set()


def _begin(kind: Kind, target: Path) -> tuple[Path, set[str]]:
    """Clear what killed runs left; return an empty staging folder, and the names of the files in ``target`` that are ours."""
    staging = target / kind.staging
    owned = _names_in(target / SEAL_FILE)
    with suppress(OSError, ValueError, TypeError):
        owned |= set(json.loads((staging / _OWNED).read_bytes()))
    for left in target.glob(f"{TEMP_PREFIX}*"):
        if left != staging:
            _remove(left)
    staging.mkdir(exist_ok=True)
    _clear(staging)
    return staging, owned


def _end(target: Path, staging: Path, owned: set[str]) -> None:
    """Remove the staging folder; where there is no seal, what says which files are ours stays."""
    if owned and not (target / SEAL_FILE).exists():
        _clear(staging)
    else:
        _remove(staging)


def _clear(staging: Path) -> None:
    for path in staging.iterdir():
        if path.name != _OWNED:
            _remove(path)


def _commit(kind: Kind, target: Path, staging: Path, ids: Mapping[str, str], owned: set[str]) -> Artefact:
    """Seal what stands in ``staging``, and bring it to its place: the old seal goes first, the new one comes last."""
    found = sorted(path.relative_to(staging).as_posix() for path in staging.rglob("*") if path.is_file())
    names = [name for name in found if name not in (_OWNED, RUN_FILE)]
    sealed = make_seal(kind, staging, ids, {name: seal_of(staging / name) for name in names})
    new = {*names, *sealed.beside}
    for name in new:
        if (target / name).is_dir():
            raise InputError(f"{target / name} is a folder, and a file is to be written; choose another folder.")
    _sync([staging / name for name in new])
    write_json(staging / _OWNED, sorted(owned | new))
    (target / SEAL_FILE).unlink(missing_ok=True)
    sync_folder(target)
    for name in sorted(owned - new - {SEAL_FILE}):
        _remove_file(target, name)
    for name in sorted(new):
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        (staging / name).replace(place)
    for folder in sorted({(target / name).parent for name in new}):
        sync_folder(folder)
    (staging / SEAL_FILE).replace(target / SEAL_FILE)
    sync_folder(target)
    done = replace(sealed, folder=target)
    remember_sealed(done)
    return done


def _sync(files: Collection[Path]) -> None:
    """Make files durable; many at a time, for hundreds of pictures would otherwise wait for the disk one by one."""

    def sync(path: Path) -> None:
        with path.open("rb") as handle:
            os.fsync(handle.fileno())

    with ThreadPoolExecutor(_SYNCING) as pool:
        list(pool.map(sync, files))


def _remove_file(target: Path, name: str) -> None:
    """Remove a file of an earlier artefact, and folders that are empty then."""
    path = target / name
    if not path.parent.resolve().is_relative_to(target.resolve()):
        return  # the name comes from a file that anyone may have written, and leads out of the folder
    path.unlink(missing_ok=True)
    for folder in path.parents[: len(Path(name).parts) - 1]:
        with suppress(OSError):  # it holds something, or is gone already
            folder.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
