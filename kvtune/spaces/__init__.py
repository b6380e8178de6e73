"""Search spaces: which parameters are searched, over which ranges, and which are held."""

from kvtune.spaces.ranges import Range
from kvtune.spaces.search_space import SearchSpace
from kvtune.spaces.shipped import default_space, load_space, space_for, spaces_folder

__all__ = ["Range", "SearchSpace", "default_space", "load_space", "space_for", "spaces_folder"]
