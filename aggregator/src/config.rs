//! Parsed values with documented defaults.
