//! Raw sockets that are gone in the middle of a request: before its head is whole, within its body, within
//! its answer, or within what it was upgraded to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;
use tests::Dice;
use tests::http_client::pause;

use crate::client::PATIENCE;
use crate::questions::{Question, What};

/// Makes one request, or a part of it, and leaves.
pub(crate) fn leave_one(address: SocketAddr, number: u64, dice: &mut Dice) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    stream.set_write_timeout(Some(PATIENCE)).expect("an option");
    if dice.flip() {
        // Its close is a reset.
        let reset = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        reset.expect("an option");
    }
    let question = match dice.one_in(6) {
        true => Question {
            what: What::Upgrade,
            number,
            size: 0,
        },
        false => Question::drawn(dice, number),
    };
    let body = question.body();
    let mut head = format!("POST {question} HTTP/1.1\r\nhost: test\r\n");
    if question.has_body() {
        head += &format!("content-length: {}\r\n", body.len());
    }
    if question.what == What::Upgrade {
        head = head.replace("POST", "GET") + "connection: upgrade\r\nupgrade: echo\r\n";
    }
    let whole = [head.as_bytes(), b"\r\n", &body].concat();
    let said = match dice.below(3) {
        0 => dice.below(whole.len()),
        1 => whole.len() - dice.below(body.len() + 1),
        _ => whole.len(),
    };
    // An answer that nobody takes can hold the request up: so little is sent at once.
    let said = said.min(50_000);
    stream
        .write_all(&whole[..said])
        .expect("the server takes it");
    if said == whole.len() && dice.flip() {
        let mut part = vec![0; 1 + dice.below(4_000)];
        // An end is as good as an answer, to somebody who leaves.
        let _ = stream.read(&mut part);
    } else {
        pause(Duration::from_micros(1 + dice.below(3_000) as u64));
    }
}
