//! Dead letters as a queue: what lies in the dead-letter store of a stream, and which of it is meant.
//!
//! In: a stream's declaration and a reader of its dead-letter store. Out: the objects there that are this stream's, one
//! after the other, and of each either its letters, a line at a time, or the object that could not be placed; in a server
//! that runs, both put back. Memory holds a page of names and one line, or one part of what is put back, however much lies
//! there. Never writes to the dead-letter store.

pub mod choice;
pub mod shelf;

pub mod redrive;

pub use choice::Choice;
pub use redrive::{Order, Redrive, RedriveError, Tally};
pub use shelf::{Content, Found, Letters, ReadError, Shelf, Whole};
