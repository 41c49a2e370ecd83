"""How many requests a caller may make: token buckets, here or in a Redis that replicas share."""
