"""The planning model: the whole country at flow level (`MODEL.md`)."""
