"""Sparse coding and dictionary learning as fast scikit-learn estimators."""
