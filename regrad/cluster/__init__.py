"""All of Ray: sessions, actors, tasks, metrics and the job server."""
