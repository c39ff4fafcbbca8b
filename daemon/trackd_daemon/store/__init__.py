"""The hub's store: catalog (SQLite), series (DuckDB and Parquet parts) and the ingest that feeds both."""

from trackd_daemon.store.embedded import EmbeddedStore

__all__ = ["EmbeddedStore"]
