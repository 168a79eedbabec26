//! What is unwelcome, and one cord watching for it.
