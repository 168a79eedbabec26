//! What the engine says, told as stories: one line in, one line out.

mod anything;
mod bounds;
mod captured;
mod causes;
mod custom;
mod devices;
mod fleet;
mod gpu;
mod inferred;
mod jobs;
mod overrides;
mod rules;
mod sim;
