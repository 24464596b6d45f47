"""Places that another account can reach, as root lets one run PostgreSQL. Nobody's folders are opened for it."""

from __future__ import annotations

import shutil
import stat
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from example.services.process import ServiceError

if TYPE_CHECKING:
    from collections.abc import Sequence

SHELTER = Path("/var/lib/django-tenant-messaging-demo")
"""Root's own folder for what can't stay where it is: each folder in it belongs to a path that its file `of` names."""


def can_reach(path: Path, uid: int) -> bool:
    """Tell whether an account can pass through all folders above `path`; of those that aren't there yet, it can."""
    return all(_may(uid, folder, stat.S_IXOTH) for folder in path.parents if folder.exists())


def can_read(folder: Path, uid: int) -> bool:
    """Tell whether an account can read and run all that is in `folder`."""
    return can_reach(folder, uid) and all(
        path.is_symlink() or _may(uid, path, stat.S_IXOTH | stat.S_IROTH if path.is_dir() else stat.S_IROTH)
        for path in (folder, *folder.rglob("*"))
    )


def shelter(path: Path) -> Path:
    """The folder in which that is kept which belongs at `path`; those of paths that are gone are removed."""
    try:
        SHELTER.mkdir(mode=0o711, exist_ok=True)
        for kept in SHELTER.glob("*/of"):
            if not _is_there(Path(kept.read_text())):
                shutil.rmtree(kept.parent, ignore_errors=True)
        folder = SHELTER / sha256(str(path).encode()).hexdigest()[:16]
        folder.mkdir(mode=0o711, exist_ok=True)
        (folder / "of").write_text(str(path))
    except OSError as error:
        raise ServiceError(
            f"Root can't run PostgreSQL, another account can't reach {path}, and {SHELTER} can't be used"
            f" ({error.strerror}): run this as an ordinary user, or set DATABASE_URL."
        ) from error
    # Whatever the umask says.
    for each in (SHELTER, folder):
        each.chmod(0o711)
    return folder


def readable_copy(root: Path, parts: Sequence[str], uid: int) -> Path:
    """The folder `root` if the account can read these parts of it, else one with copies of them."""
    if all(can_read(root / part, uid) for part in parts):
        return root
    copy = shelter(root / parts[0]) / "copy"
    if not copy.exists():
        draft = Path(tempfile.mkdtemp(dir=copy.parent))
        for part in parts:
            shutil.copytree(root / part, draft / part, symlinks=True)
        for path in (draft, *(found for found in draft.rglob("*") if not found.is_symlink())):
            mode = path.stat().st_mode
            path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))
        # Another process may have been faster.
        with suppress(OSError):
            draft.rename(copy)
        shutil.rmtree(draft, ignore_errors=True)
    return copy


def passable_folder(prefix: str, uid: int | None) -> Path:
    """A new temporary folder that an account, if one is named, can pass through."""
    parent = Path(tempfile.gettempdir()).resolve()
    if uid is not None and not can_reach(parent / prefix, uid):
        SHELTER.mkdir(mode=0o711, exist_ok=True)
        parent = SHELTER
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    if uid is not None:
        folder.chmod(0o711)
    return folder


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _may(uid: int, path: Path, rights: int) -> bool:
    """Tell by a path's mode; the account is in the group of its own number alone, as `spawn` starts it."""
    found = path.stat()
    shift = 6 if found.st_uid == uid else 3 if found.st_gid == uid else 0
    return found.st_mode >> shift & rights == rights
