//! Stories of a simulated fleet.
