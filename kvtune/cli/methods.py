"""``kvtune methods``: what can be tuned."""

from kvtune.cli import options as opt
from kvtune.cli.common import out, print_json


def methods(json: opt.Json = False) -> None:
    """List the methods: from which token each acts, its parameters, and the settings that are published for a model.

    Several at once are a stack: kvtune search --method kvsmooth+pai

    Example: kvtune methods
    """
    from kvtune.report.data.methods import method_documents
    from kvtune.report.terminal.methods import methods_view

    documents = method_documents()
    if json:
        print_json(documents)
        return
    out().print(methods_view(documents))
