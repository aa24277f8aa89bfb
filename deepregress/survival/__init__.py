"""Times to events: follow-up, hazards, competing risks, curves and scores."""
