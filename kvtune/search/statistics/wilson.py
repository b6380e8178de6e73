"""Wilson's score interval for a share."""

import math
from statistics import NormalDist


def wilson_interval(hits: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of shares that a score test does not reject (E. B. Wilson, 1927, JASA 22).

    It stays inside 0 to 100, has a width also at both ends, and covers close to its level for small counts (Brown, Cai
    and DasGupta, 2001, Statistical Science 16), where the usual p ± 1.96 s.e. does neither.

    Parameters
    ----------
    hits, total
        Of ``total`` captions, 1 or more, ``hits`` have what is counted.
    confidence
        Of the interval, above 0 and below 1.

    Returns
    -------
    (float, float)
        Bounds in percent.
    """
    if not 0 <= hits <= total or total < 1:
        raise ValueError(f"{hits} of {total} is no share")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = hits / total
    scale = 1 + z * z / total
    middle = (share + z * z / (2 * total)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # The ends are exact where no or every caption is hit; rounding must not take them off 0 and 100.
    low = 0.0 if hits == 0 else 100 * (middle - half)
    high = 100.0 if hits == total else 100 * (middle + half)
    return low, high
