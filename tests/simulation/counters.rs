//! What a core says of itself, when the kernel makes it hard to count.

use quoit::op;
use quoit::sim::{self, Fault, Sim};
use quoit::{Cores, Runtime};

/// What a kernel that was too busy takes while the core pauses was not counted. Found by seed 5 of
/// `requests::a_nop_goes_to_the_kernel_and_back`.
#[test]
fn what_goes_out_after_a_busy_kernel_s_pause_is_counted() {
    Sim::with_seed(5).run(|| {
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("a core");
        let handle = runtime.handle();
        let observed = handle.clone();
        let task = handle.spawn(handle.cores()[0], move || async move {
            op::nop().await.expect("not cancelled");
            let before = observed.metrics()[0];
            for _ in 0..10 {
                sim::force(Fault::EnterAgain);
                op::nop().await.expect("not cancelled");
            }
            let after = observed.metrics()[0];
            assert_eq!(after.busy_enters - before.busy_enters, 10);
            assert_eq!(after.submitted - before.submitted, 10);
        });
        task.expect("room").wait().expect("it ended");
    });
}
