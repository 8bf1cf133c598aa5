"""What may be said in place of a cluster's address."""

from __future__ import annotations

LOCAL = "local"  # Ray on this machine, for this run alone
NO_CLUSTER = "none"  # no Ray: all in the process of the command
