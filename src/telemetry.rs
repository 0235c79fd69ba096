//! Metric names and spans in one list.
