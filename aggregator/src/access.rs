//! Who may speak, and who may change what.
