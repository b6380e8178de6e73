"""The two ways in which kvtune says no; the command line prints either as one line."""


class KvtuneError(Exception):
    """The work failed midway: one line that says what happened and what to do. Exit code 1."""

    exit_code = 1


class RequestError(KvtuneError):
    """The request is wrong: one line that says what is wrong and what to write instead. Exit code 2."""

    exit_code = 2
