//! A stretch of one GPU's columns as bytes, and back.
