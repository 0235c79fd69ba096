//! Dead letters as a queue: what lies in the dead-letter store of a stream, and which of it is meant.
//!
//! In: a stream's declaration and a reader of its dead-letter store. Out: the objects there that are this stream's, one
//! after the other, and of each either its letters, a line at a time, or the object that could not be placed. Memory
//! holds a page of names and one line, however much lies there. Never writes.

pub mod choice;
pub mod shelf;

pub use choice::Choice;
pub use shelf::{Content, Found, Letters, ReadError, Shelf, Whole};
