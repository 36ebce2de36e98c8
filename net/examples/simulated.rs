//! Tests a server of one's own under seeds: a bug, the seed that finds it, and the fix.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use quoit::fs::{File, OpenOptions};
use quoit::sim::{Faults, Sim, for_seeds};
use quoit::{Scope, spawn};
use quoit_net::tcp::{TcpListener, TcpStream};

/// A till with money in it. Whoever connects sends how much he wants, as one byte, and gets a byte
/// back: how much he is paid.
struct Till {
    money: Cell<u64>,
    journal: File,
    way: Way,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    /// Looks whether there is enough, writes the journal, pays.
    Hasty,
    /// Takes the money out, writes the journal, pays; puts it back if the journal could not be
    /// written.
    Careful,
}

impl Till {
    async fn pay(&self, wanted: u8) -> io::Result<u8> {
        let amount = u64::from(wanted);
        if amount > self.money.get() {
            return Ok(0);
        }
        match self.way {
            Way::Hasty => {
                // The bug: while the journal is written, somebody else looks into the same till.
                self.journal.write_all_at(vec![wanted], 0).await.0?;
                self.money.set(self.money.get().wrapping_sub(amount));
            }
            Way::Careful => {
                self.money.set(self.money.get() - amount);
                if let Err(error) = self.journal.write_all_at(vec![wanted], 0).await.0 {
                    self.money.set(self.money.get() + amount);
                    return Err(error);
                }
            }
        }
        Ok(wanted)
    }

    async fn serve(self: Rc<Self>, listener: TcpListener) -> io::Result<()> {
        loop {
            let (stream, till) = (listener.accept().await?, Rc::clone(&self));
            drop(spawn(async move {
                let (read, wanted) = stream.read([0]).await;
                if read? == 1 {
                    let paid = till.pay(wanted[0]).await?;
                    stream.write_all([paid]).await.0?;
                }
                Ok::<_, io::Error>(())
            }));
        }
    }
}

/// The program under test: three customers at once, and 100 in the till.
async fn three_customers(way: Way) -> io::Result<()> {
    let options = OpenOptions::new().write(true).create(true);
    let till = Rc::new(Till {
        money: Cell::new(100),
        journal: options.open("journal").await?,
        way,
    });
    let listener = TcpListener::bind("127.0.0.1:4000")?;
    let address = listener.local_addr();
    let open = Scope::new();
    let close = open.handle();
    let server = spawn(async move { open.run(till.serve(listener)).await });
    let customers: Vec<_> = [60, 50, 40]
        .map(|wanted| {
            spawn(async move {
                let stream = TcpStream::connect(address).await?;
                stream.write_all([wanted]).await.0?;
                let (read, paid) = stream.read([0]).await;
                read?;
                Ok::<_, io::Error>(u64::from(paid[0]))
            })
        })
        .into();
    let mut paid = 0;
    for customer in customers {
        paid += customer.await??;
    }
    close.cancel();
    server.await??;
    assert!(paid <= 100, "the till had 100, and has paid {paid}");
    Ok(())
}

/// Runs the program under one seed. The faults are those that a program need not notice: nothing
/// fails, but everything may take its time, and come in any order.
fn under_seed(sim: Sim, way: Way) -> u64 {
    let outcome = sim.faults(Faults::benign()).block_on(three_customers(way));
    outcome.value.expect("nothing fails under benign faults");
    outcome.trace
}

fn main() {
    // In a test this would be all: `for_seeds` stops at the seed that fails, and says which it was.
    let failed = Cell::new(0);
    let hunt = || {
        for_seeds(0..10_000, |sim| {
            failed.set(sim.seed());
            under_seed(sim, Way::Hasty);
        });
    };
    let found = catch_unwind(AssertUnwindSafe(hunt)).is_err();
    assert!(found, "one of these seeds finds the bug");
    println!("the hasty till fails under seed {}", failed.get());

    for_seeds(0..1_000, |sim| {
        let again = sim.clone();
        let trace = under_seed(sim, Way::Careful);
        assert_eq!(
            trace,
            under_seed(again, Way::Careful),
            "the same seed is the same run"
        );
    });
    println!("the careful till pays no more than it has, under every seed");
}
