//! Command line, environment and file, read as one.
