//! Disk caps.
