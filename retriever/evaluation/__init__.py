"""Measures retrieval: judgements, runs, measures, and what their differences mean."""
