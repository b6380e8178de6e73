"""The two ways in which kvtune says no; the command line prints either as one line."""

from collections.abc import Callable


class KvtuneError(Exception):
    """The work failed midway: one line that says what happened and what to do. Exit code 1."""

    exit_code = 1


class RequestError(KvtuneError):
    """The request is wrong: one line that says what is wrong and what to write instead. Exit code 2."""

    exit_code = 2


def together(error: RequestError, *further: Callable[[], object]) -> RequestError:
    """One error that says what the first one says and what each further step refuses, so that all is mended at once."""
    said = [str(error)]
    for step in further:
        try:
            step()
        except RequestError as other:
            said.append(str(other))
    return RequestError("; and ".join(dict.fromkeys(said)))
