//! A tiny HTTP server.
