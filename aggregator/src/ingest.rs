//! The gRPC service for agents.
