//! Tests of the log as its callers see it.

mod disk;
