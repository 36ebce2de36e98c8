//! Bytes over connections: whatever is cancelled, cut short or taken up again on either side, what a
//! sender says that he has sent is what arrives, once and in order.

use std::io;
use std::net::Shutdown;
use std::pin::pin;
use std::task::Poll;

use quoit::time::sleep;
use quoit::{CarriesCancelled, Scope, yield_now};
use quoit_net::tcp::TcpStream;
use tests::poll_once;

use super::ledger::Lane;
use super::workload::{Dice, Here, Plan, transferred};

/// The receiving end of a lane: whatever cancels come, every byte is received once, in order.
pub(super) async fn receive_lane(plan: &Plan, stream: TcpStream) -> io::Result<()> {
    let mut lane: Option<Lane> = None;
    let mut head = Vec::new();
    let mut dice = Dice::new(plan.seed, 77);
    // A reader who keeps what he was given must not starve the others.
    let mut hoard = Vec::new();
    let keeps = dice.roll(3) == 0;
    loop {
        let received = match dice.roll(4) {
            // A wait that may be cut off, and is taken up again.
            0 => {
                let wait = Scope::new().timeout(dice.micros(300));
                match wait.run(stream.recv()).await? {
                    Some(received) => received,
                    None => continue,
                }
            }
            // A wait that is dropped at once, and is taken up again.
            1 => {
                let mut wait = pin!(stream.recv());
                match poll_once(wait.as_mut()).await {
                    Poll::Ready(received) => received?,
                    Poll::Pending => {
                        yield_now().await?;
                        continue;
                    }
                }
            }
            2 => {
                let (count, bytes) = stream.read(vec![0; 1 + dice.roll(700) as usize]).await;
                match count? {
                    0 => None,
                    count => {
                        take(plan, &mut lane, &mut head, &bytes[..count]);
                        continue;
                    }
                }
            }
            _ => stream.recv().await?,
        };
        let Some(chunk) = received else {
            if let Some(lane) = lane {
                plan.ledger.ended(&lane);
            }
            return Ok(());
        };
        take(plan, &mut lane, &mut head, &chunk);
        if keeps && hoard.len() < 12 {
            hoard.push(chunk);
        }
        if dice.roll(8) == 0 {
            // A slow reader, who keeps what he has.
            let pause = dice.micros(2_000);
            sleep(pause).await?;
        }
    }
}

fn take(plan: &Plan, lane: &mut Option<Lane>, head: &mut Vec<u8>, mut bytes: &[u8]) {
    if lane.is_none() {
        let missing = (8 - head.len()).min(bytes.len());
        head.extend_from_slice(&bytes[..missing]);
        bytes = &bytes[missing..];
        if let Ok(number) = head[..].try_into() {
            *lane = Some(plan.ledger.lane(u64::from_le_bytes(number)));
        }
    }
    if let Some(lane) = lane {
        plan.ledger.received(lane, bytes);
    }
}

/// The sending end of a lane: what an op says it has sent is what arrives.
pub(super) async fn send_lane(here: &Here, dice: &mut Dice) -> io::Result<()> {
    let plan = &here.plan;
    let stream = TcpStream::connect(here.address).await?;
    let lane = plan.ledger.open();
    let mut sent = 0;
    let mut whole = true;
    // The number of the lane goes first, as a whole or not at all.
    let (result, _) = stream.write_all(lane.number().to_le_bytes().to_vec()).await;
    if let Err(error) = result {
        plan.ledger.sent(&lane, 0, false);
        return Err(error);
    }
    let mut failure = None;
    for _ in 0..1 + dice.roll(4) {
        let flood = dice.roll(200) == 0;
        let most = if flood { 700_000 } else { 9_000 };
        let bytes = lane.bytes(sent, 1 + dice.roll(most) as usize);
        let length = bytes.len();
        let patience = dice.micros(3_000);
        let sending = async {
            let (result, _) = match dice.roll(4) {
                0 => {
                    let half = length / 2;
                    let parts = vec![bytes[..half].to_vec(), bytes[half..].to_vec()];
                    let (result, _) = stream.write_all_vectored(parts).await;
                    (result.map(|()| length), Vec::new())
                }
                1 => stream.write(bytes).await,
                2 => stream.write_zero_copy(bytes).await,
                _ => {
                    let (result, bytes) = stream.write_all(bytes).await;
                    (result.map(|()| length), bytes)
                }
            };
            match result {
                Ok(count) => Ok(count),
                // Not a byte is forgotten, whatever ended it.
                Err(error) => match transferred(&error) {
                    0 => Err(error),
                    count => Ok(count),
                },
            }
        };
        match Scope::new().timeout(patience).run(sending).await {
            Ok(Some(count)) => sent += count,
            Ok(None) => {}
            Err(error) => {
                whole = error.cancelled().is_some();
                failure = Some(error);
                break;
            }
        }
    }
    plan.ledger.sent(&lane, sent, whole && !plan.is_rough());
    if dice.roll(2) == 0 {
        stream.shutdown(Shutdown::Write)?;
    }
    failure.map_or(Ok(()), Err)
}
