"""Models with sparse terms: fits, paths of lam and what chooses lam."""
