"""What one driver can take from many workers, as a table in the terminal."""

from collections.abc import Sequence

from rich.table import Table

from kvtune.bench.cluster.run import DriverBench
from kvtune.report.terminal.tables import plain_table


def cluster_table(results: Sequence[DriverBench]) -> Table:
    """Return a row a search."""
    table = plain_table()
    names = (
        "workers",
        "trials",
        "images",
        "captions",
        "captions\na second",
        "processor\nseconds",
        "seconds",
        "peak\nMiB",
    )
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for each in results:
        table.add_row(
            str(each.workers),
            str(each.trials),
            str(each.images),
            f"{each.captions:,}",
            f"{each.captions_a_second:,.0f}",
            f"{each.cpu_seconds:.1f}",
            f"{each.seconds:.1f}",
            f"{each.peak_mib:,.0f}",
        )
    table.caption = "captions a second of the driver's processor time; workers that pretend cost it nothing"
    return table
