"""The processes: start, workers, the HTTP protocol of a connection."""
