//! Gives up on something slow, and goes on.

use std::time::Duration;

use quoit::{Cancelled, Scope, time};

fn main() -> std::io::Result<()> {
    quoit::block_on(async {
        let answer = Scope::new()
            .timeout(Duration::from_millis(100))
            .run(async {
                time::sleep(Duration::from_secs(3600)).await?;
                Ok::<_, Cancelled>("at last")
            })
            .await?;
        println!("{}", answer.unwrap_or("too slow"));
        Ok(())
    })?
}
