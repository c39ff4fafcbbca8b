"""The hub's HTTP edge: API, events and the dashboard's files, for this user only."""
