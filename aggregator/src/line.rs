//! Admission, head, engine and incidents, joined: one pure thing that is told the time.
