"""The Open Inference Protocol (V2) over gRPC."""

import logging
import os

# gRPC would log every malformed call, with what it holds: a client could fill the log, and a key could be in it. The C
# library reads the variable when it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
logging.getLogger("grpc").setLevel(logging.CRITICAL)
