//! GPUs read through NVML.
