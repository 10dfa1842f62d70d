"""The files that this server received, told apart from everything else in the folder for temporary files."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path

from monai_sasm.io.owned_folder import OwnedFolder, temporary


class Uploads:
    """A folder of this process alone, where the temporary files of the process lie from now on.

    MONAI Label writes an upload to an unnamed temporary file and hands its path to the app like any other path. In
    the folder of the system, which every program shares, it could not be told from somebody else's file.
    """

    def __init__(self) -> None:
        self._own = OwnedFolder(temporary(), "sasm-label-")
        self.folder = self._own.path
        tempfile.tempdir = str(self.folder)
        atexit.register(self.close)

    def close(self) -> None:
        """Delete them, with all that is temporary."""
        self._own.close()

    def __contains__(self, path: object) -> bool:
        """Whether a resolved path is an upload; results, which lie there until they are sent, are none."""
        if not isinstance(path, Path) or path.parent != self.folder:
            return False
        return path.name.startswith(tempfile.gettempprefix()) and path.is_file()
