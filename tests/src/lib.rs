//! What stories about the whole line share.

pub mod external;
