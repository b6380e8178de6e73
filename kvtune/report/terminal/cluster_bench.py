"""What one driver can take from many workers, as a table in the terminal."""

from collections.abc import Sequence

from rich.table import Table

from kvtune.bench.cluster.run import DriverBench
from kvtune.report.terminal.tables import add_numbers, plain_table


def cluster_table(results: Sequence[DriverBench]) -> Table:
    """Return a row a search."""
    table = plain_table()
    add_numbers(table, ("workers", "trials", "images", "captions", "captions\na second"))
    add_numbers(table, ("processor\nseconds", "seconds", "peak\nMiB"))
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
