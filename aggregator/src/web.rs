//! The HTTP side: board, API, Prometheus, events.
