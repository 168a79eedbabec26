//! Telling people: routes, outbox, receivers.
