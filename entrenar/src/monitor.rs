//! The façade of the page: monitors and exporters.
