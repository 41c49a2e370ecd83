"""The ``scamp`` command: look at a mesh, call it, and make what a service needs to join it."""
