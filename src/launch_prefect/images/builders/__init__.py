"""One file for each engine that can build an image from a context folder."""
