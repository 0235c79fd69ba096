//! Tests of the log as its callers see it: on a simulated disk that does its worst, and once on a real one.

mod world;

mod calls;

mod crashes;

mod damage;

mod faults;

mod format;

mod full;

mod real;
