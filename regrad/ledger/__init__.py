"""What an output holds and who may write to it: units, the lease, and how far a run is."""
