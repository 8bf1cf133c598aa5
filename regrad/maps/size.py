"""How many points a map has: what ``--map-points`` takes."""

from __future__ import annotations

from regrad.settings.kinds import whole_number

MOST = 20_000
DEFAULT = 5_000
POINTS = whole_number(0, MOST)
ABOUT = f"points of the map, for which runs need --embeddings; 0: no map, at most {MOST}"
