"""The token that a Ray cluster may ask for. This is seen to before Ray is imported, which reads it then."""

import os
from collections.abc import MutableMapping
from pathlib import Path


def show_token(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have Ray show its token to clusters, if it has one and nothing else is set.

    ``ray start`` asks for a token wherever there is one, as there is after Ray was used on one machine; who connects
    shows it only where ``RAY_AUTH_MODE`` says so. A cluster that asks for none takes no notice of it.
    """
    named = any(environment.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if named or (Path(os.path.expanduser("~")) / ".ray" / "auth_token").is_file():
        environment.setdefault("RAY_AUTH_MODE", "token")
