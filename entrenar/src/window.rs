//! The bounded recent past of a value.
