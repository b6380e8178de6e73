"""The consoles show text as it is, and only our own styles are styles."""

import io

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from kvtune.console import PlainConsole

FOREIGN = "[red]x[/red] [/b] :smile: \x1b[31m http://u:SECRET@h 1.5"
SHOWN = "[red]x[/red] [/b] :smile: \\x1b[31m http://u:***@h 1.5"


def printed(renderable, **settings):
    file = io.StringIO()
    PlainConsole(file=file, width=100, **settings).print(renderable, soft_wrap=True)
    return file.getvalue().strip()


@pytest.mark.parametrize("renderable", [FOREIGN, Text(FOREIGN), Text.assemble(("", "bold"), FOREIGN)])
def test_text_is_shown_as_it_is(renderable):
    assert printed(renderable) == SHOWN


def test_so_it_is_in_tables_and_beside_progress():
    table = Table(box=None, title=FOREIGN)
    table.add_column(FOREIGN)
    table.add_row(FOREIGN)
    table.add_row(Text(FOREIGN))
    assert printed(table).count(SHOWN) == 4
    progress = Progress(TextColumn("{task.description}", markup=False))
    progress.add_task(FOREIGN, total=None)
    assert printed(progress).startswith(SHOWN[:40])


def test_styles_of_our_own_stay():
    line = Text.assemble(("ok", "green"), " a\x1bb")
    shown = printed(line, force_terminal=True, color_system="standard", _environ={"TERM": "xterm"})
    assert shown == "\x1b[32mok\x1b[0m a\\x1bb"


@pytest.mark.parametrize(
    ("terminal", "said"), [(True, "words stay \nwhole here\n"), (False, "words stay whole here\n")]
)
def test_a_sentence_keeps_its_words_on_a_terminal_and_its_line_elsewhere(terminal, said):
    file = io.StringIO()
    PlainConsole(file=file, width=12, force_terminal=terminal, color_system=None).say("words stay whole here")
    assert file.getvalue() == said
