//! Programs that measure quoit. See `src/bin`.
