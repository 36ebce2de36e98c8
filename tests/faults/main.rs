//! The world misbehaves: the kernel refuses, limits are reached, programs let go of what they hold
//! at the worst moment.

mod drops;
mod exhaustion;
mod lifetime;
mod processes;
mod refusal;
