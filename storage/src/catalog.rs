//! Catalog of streams.
