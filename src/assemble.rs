//! From specification to running streams: the only file that knows every wing.
