"""Generated from ingest.proto by scripts/gen-proto."""
