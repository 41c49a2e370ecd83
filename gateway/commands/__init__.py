"""Commands of ``scamp-gateway`` with a module of their own, loaded when they are used."""
