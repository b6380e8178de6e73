"""Versions of the packages that captions depend on, as they are installed."""

from importlib.metadata import PackageNotFoundError, version

import kvtune


def package_versions(*packages: str) -> dict[str, str]:
    """Versions of kvtune and of those ``packages`` that are installed."""
    found = {"kvtune": kvtune.__version__}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
