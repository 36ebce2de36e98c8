//! Programs that measure quoit (see `src/bin`), and the parts that they share with the benchmarks in `micro`.

pub mod gate;
pub mod matrix;
pub mod micro;
pub mod outcome;
pub mod process;
