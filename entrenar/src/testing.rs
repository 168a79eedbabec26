//! Series notation and builders for tests.
