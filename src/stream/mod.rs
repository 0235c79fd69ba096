//! One delivery stream, one file per station.
