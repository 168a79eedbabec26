//! A seeded fleet: jobs, physics, faults.
