//! Clauses of the rules of cancellation that no scenario tries.

use std::time::Duration;

use quoit::time::sleep;
use quoit::{Cancelled, Group, Misuse, Reason, Scope, group};
use tests::conform;

const LONG: Duration = Duration::from_secs(3600);

// --- reasons ---

#[test]
fn a_cancel_for_a_misuse_is_a_request() {
    const MISUSE: Reason = Reason::Misuse(Misuse::Stray);
    conform(|_| async {
        let scope = Scope::new();
        let ran = scope.run(async {
            scope.cancel_with(MISUSE, Duration::ZERO);
            sleep(LONG).await
        });
        assert_eq!(ran.await, Ok(None));
        assert_eq!(
            scope.cancelled().map(Cancelled::reason),
            Some(Reason::Requested)
        );

        let cancelled = group(async |g: Group<Cancelled>| {
            g.cancel_for(MISUSE);
            sleep(LONG).await
        });
        assert!(matches!(cancelled.await, Ok(None)));

        let joined = group(async |g: Group<Cancelled>| {
            let child = g.spawn(sleep(LONG));
            child.cancel_for(MISUSE);
            assert!(child.await.is_err());
            Ok(())
        });
        assert!(matches!(joined.await, Ok(Some(()))));
    });
}
