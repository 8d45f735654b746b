"""What is computed: the forward pass of a transformer, and the runtimes that do it."""
