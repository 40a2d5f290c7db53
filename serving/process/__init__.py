"""The server's processes: start, workers, signals, and changes that all workers make together."""
