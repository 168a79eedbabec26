//! What the node itself says about the GPUs' users, beside NVML.

pub mod proc;
pub mod rdma;
