"""Learning a dictionary: statistics, atom updates, initialisation, estimators."""
