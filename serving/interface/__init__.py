"""What HTTP and gRPC have in common: keys, ids, tensors, answers, the statuses and the pace of refusals."""
