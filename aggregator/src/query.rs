//! Head and store together, as points.
