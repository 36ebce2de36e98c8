//! What was sent and what has arrived, per connection.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// One direction of one connection: its bytes are told by their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lane(u64);

#[derive(Debug, Default)]
struct Account {
    /// How many bytes the sender says he has sent, once he has said so.
    sent: Option<usize>,
    /// Nothing has failed that could have lost some.
    whole: bool,
    received: usize,
    ended: bool,
}

/// All lanes of a program.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<BTreeMap<u64, Account>>);

impl Lane {
    pub(super) fn number(&self) -> u64 {
        self.0
    }

    /// The byte at a place.
    fn byte(&self, place: usize) -> u8 {
        (self.0 as u8).wrapping_mul(31) ^ (place as u8) ^ ((place >> 8) as u8).wrapping_mul(7)
    }

    /// The bytes from a place on.
    pub(super) fn bytes(&self, from: usize, count: usize) -> Vec<u8> {
        (from..from + count).map(|place| self.byte(place)).collect()
    }
}

impl Ledger {
    fn with<R>(&self, f: impl FnOnce(&mut BTreeMap<u64, Account>) -> R) -> R {
        f(&mut self.0.lock().expect("nobody panics with it"))
    }

    /// Opens a lane, at its sending end.
    pub(super) fn open(&self) -> Lane {
        self.with(|lanes| {
            let number = lanes.len() as u64 + 1;
            lanes.insert(number, Account::default());
            Lane(number)
        })
    }

    /// Finds a lane, at its receiving end.
    pub(super) fn lane(&self, number: u64) -> Lane {
        self.with(|lanes| {
            assert!(
                lanes.contains_key(&number),
                "a lane {number} that nobody has opened"
            );
        });
        Lane(number)
    }

    /// The sender has done: so many bytes are on their way or there.
    pub(super) fn sent(&self, lane: &Lane, count: usize, whole: bool) {
        self.with(|lanes| {
            let account = lanes.get_mut(&lane.0).expect("opened");
            account.sent = Some(count);
            account.whole = whole;
        });
    }

    /// Bytes have arrived: each is the one that is next.
    pub(super) fn received(&self, lane: &Lane, bytes: &[u8]) {
        self.with(|lanes| {
            let account = lanes.get_mut(&lane.0).expect("opened");
            for byte in bytes {
                assert_eq!(
                    *byte,
                    lane.byte(account.received),
                    "lane {} has another byte at {}",
                    lane.0,
                    account.received
                );
                account.received += 1;
            }
        });
    }

    /// The receiver has seen the end.
    pub(super) fn ended(&self, lane: &Lane) {
        self.with(|lanes| lanes.get_mut(&lane.0).expect("opened").ended = true);
    }

    /// Compares both ends of every lane. Returns how many were whole.
    pub(super) fn check(&self) -> usize {
        self.with(|lanes| {
            let mut whole = 0;
            for (number, account) in lanes {
                let Some(sent) = account.sent else { continue };
                assert!(
                    account.received <= sent,
                    "lane {number}: {} bytes have arrived, and only {sent} were sent",
                    account.received
                );
                if account.ended && account.whole {
                    whole += 1;
                    assert_eq!(account.received, sent, "lane {number} has lost bytes");
                }
            }
            whole
        })
    }
}
