"""What a client sees: operations, documents, statuses."""
