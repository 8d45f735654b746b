"""Finding: pure functions over a view of the index."""
