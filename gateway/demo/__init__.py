"""A small mesh on this machine, to try the gateway on: real processes, real TLS, real tickets."""
