//! The façade of the page: training with a callback.
