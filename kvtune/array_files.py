"""Arrays in NumPy's files, read whole or refused."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file by name; that of an ``.npy`` file under no name.

    Raises
    ------
    OSError
        If it cannot be opened.
    ValueError
        If it is another file, or damaged.
    """
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {"": found}
        with found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError):
        raise
    except Exception as error:  # damage shows in ZIP, in Deflate or in a header, each with errors of its own
        raise ValueError(f"it is damaged ({error})") from error
