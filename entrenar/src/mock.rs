//! The page's mock backend.
