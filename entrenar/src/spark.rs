//! A window as glyphs.
