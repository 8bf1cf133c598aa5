"""From shards to committed scores. Only ``cluster`` and ``run`` import Ray: everything else works without it."""
