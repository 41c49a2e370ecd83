"""URLs of one's own: the routes file, the paths in it, and how requests become calls of actions."""
