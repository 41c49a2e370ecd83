"""Several worker processes that serve one port and are seen as one gateway."""
