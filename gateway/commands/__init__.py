"""Commands of ``scamp-gateway`` that have a module of their own."""
