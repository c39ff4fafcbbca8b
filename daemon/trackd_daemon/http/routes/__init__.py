"""The routes of `docs/http-api.md`, one module per subject."""
