//! Starts a task on every core, and says so.

use quoit::{Cores, Runtime};

fn main() -> std::io::Result<()> {
    Runtime::builder()
        .cores(Cores::All)
        .build()?
        .run(|core| async move {
            let sum = quoit::spawn(async { (1..=10).sum::<u32>() });
            println!("hello from core {core}: {}", sum.await?);
            Ok(())
        })
}
